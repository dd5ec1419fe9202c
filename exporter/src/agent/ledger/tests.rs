//! Each test plays a node: the targets are those of a registry, and the kernel's maps are maps of the standard library.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use exporter_ebpf::{
    loss::{LostKey, Reason},
    wait::WatchState,
};

use super::*;
use crate::{
    agent::registry::{Candidate, Moment, Registry},
    kubernetes::Placement,
    metrics::Value,
    process::Process,
    target::Features,
};

/// A node, whose clock is set by hand.
struct Node {
    registry: Registry<()>,
    ledger: Ledger,
    begun: Instant,
    second: u64,
    series: HashMap<SeriesKey, Durations>,
    /// Goroutine and start of requests in flight.
    in_flight: BTreeMap<u64, u64>,
    lost: HashMap<LostKey, u64>,
}

fn node() -> Node {
    let (registry, ledger) = (Registry::new(false), Ledger::default());
    let (series, in_flight) = (HashMap::new(), BTreeMap::new());
    Node { registry, ledger, begun: Instant::now(), second: 0, series, in_flight, lost: HashMap::new() }
}

fn placement(pod: &str, uid: &str) -> Arc<Placement> {
    Arc::new(Placement {
        namespace: "shop".into(),
        pod: pod.into(),
        uid: uid.into(),
        container: "app".into(),
        image: "app:1".into(),
        workload: None,
        labels: Arc::new([]),
        features: None,
        budget: None,
        routes: Arc::new([]),
    })
}

fn key(id: u32, status: u16) -> SeriesKey {
    SeriesKey::of(Family::HttpServer, id, status)
}

fn goroutine(id: u32) -> u64 {
    exporter_ebpf::http::goroutine_key(id, 0xc000)
}

fn failed<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::EFAULT))
}

impl Node {
    fn now(&self) -> Moment {
        let since = Duration::from_secs(self.second);
        Moment { at: self.begun + since, wall: SystemTime::UNIX_EPOCH + since, snapshots_begun: 0 }
    }

    /// A process of a pod that is attached to; its id.
    fn start(&mut self, pid: u32, pod: &str, uid: &str) -> u32 {
        self.second += 1;
        let new = Candidate {
            process: Process::sample(pid, 1, 1),
            owner: "/pod".into(),
            placement: Some(placement(pod, uid)),
            features: Features::default(),
            budget: 0.01,
            others: true,
            late: false,
        };
        self.registry.adopt(new, self.now());
        let id = self.registry.of_pid(pid).expect("it is a target").id;
        let target = self.registry.targets.get_mut(&id).expect("it is a target");
        target.stage = Stage::Measured;
        id
    }

    fn end(&mut self, id: u32) {
        self.second += 1;
        let now = self.now();
        self.registry.end(id, false, now);
    }

    /// The kernel side counts so many requests.
    fn count(&mut self, id: u32, requests: u64) {
        let value = self.series.entry(key(id, 200)).or_insert(Durations::ZERO);
        (0..requests).for_each(|_| value.record(Family::HttpServer.scale(), 1_000_000));
    }

    fn begin(&mut self) -> View {
        self.ledger.begin(self.registry.targets.clone()).view()
    }

    fn read(&self, view: &View) -> Read {
        let (mut rows, mut seen) = (Rows::default(), InFlight::default());
        self.series.iter().for_each(|(key, value)| rows.add(key, value, false));
        self.in_flight.iter().for_each(|(key, start)| seen.add(&view.settled, *key, *start, 7));
        let kept = view.targets.keys().map(|id| (*id, WatchState { parks: 1, ..WatchState::default() })).collect();
        Read { series: Ok(rows), in_flight: Ok(seen), lost: Ok(self.lost.clone()), kept: Ok(kept) }
    }

    /// Reads of which all but the first entries fail: what they had seen by then is dropped, as by `Map::read`.
    fn read_half(&self, view: &View) -> Read {
        let Read { series, .. } = self.read(view);
        series.expect("it is read").series.truncate(1);
        Read { series: failed(), in_flight: failed(), lost: failed(), kept: failed() }
    }

    fn know(&mut self, view: &View, read: Read) -> Known {
        let now = self.now().at;
        self.ledger.know(view, read, now)
    }

    /// Requests by pod, as a scrape shows them that is made of a view and what is known.
    fn shown(view: &View, known: &Known) -> BTreeMap<String, u64> {
        let labels = |key: &SeriesKey| vec![("http_response_status_code", Value::Number(key.code))];
        let label = |key: &SeriesKey, _: &Target| Some((Family::of_number(key.family)?, labels(key)));
        let mut of = BTreeMap::new();
        for series in view.series(known.series(), &view.leaders(), label) {
            let pod = series.target.iter().find(|(name, _)| *name == "pod").map(|(_, pod)| pod.to_owned());
            *of.entry(pod.expect("it is of a pod")).or_insert(0) += series.value.count();
        }
        of
    }

    /// A whole scrape.
    fn scrape(&mut self) -> BTreeMap<String, u64> {
        let view = self.begin();
        let read = self.read(&view);
        let known = self.know(&view, read);
        self.ledger.end(&view);
        Self::shown(&view, &known)
    }

    /// A scrape that can read no map.
    fn scrape_in_vain(&mut self) -> BTreeMap<String, u64> {
        let view = self.begin();
        let read = self.read_half(&view);
        let known = self.know(&view, read);
        self.ledger.end(&view);
        Self::shown(&view, &known)
    }

    /// What a target has counted, as it is retired.
    fn leaver(&self, view: &View, id: u32) -> Leaver {
        let target = view.targets.get(&id).expect("it is a target");
        let uid = target.placement.as_ref().expect("it is of a pod").uid.clone();
        let mut totals = Retired { uid, found: Some(target.found), ..Retired::default() };
        let rows = Good::of(view, self.read(view).series.expect("it is read"), self.begun);
        view.each_series(
            Some(&rows),
            |it| it == id,
            |key, _, value| {
                let labels = vec![("http_response_status_code", Value::Number(key.code))];
                totals.add(Family::HttpServer, labels, value);
            },
        );
        Leaver { id, totals: Some((target.labels.clone(), totals)) }
    }

    fn retire(&mut self, id: u32) -> Result<u64, Overtaken> {
        let view = self.begin();
        let leaver = self.leaver(&view, id);
        let retired = self.ledger.retire(&view, vec![leaver]);
        self.ledger.end(&view);
        retired
    }

    /// The rest of a burial, once no reading is in the way.
    fn remove(&mut self, id: u32, retirement: u64) {
        assert!(self.ledger.is_quiet(retirement));
        self.series.retain(|key, _| key.target() != id);
        self.registry.forgotten(&[id].into());
        self.ledger.forgotten(&[id].into());
    }

    fn bury(&mut self, id: u32) {
        let retirement = self.retire(id).expect("nobody was faster");
        self.remove(id, retirement);
    }

    fn settle(&mut self, id: u32, request: Option<(u64, u64)>) -> bool {
        let view = self.begin();
        let settled = self.ledger.settle(&view, &key(id, 500), 5, request);
        self.ledger.end(&view);
        settled
    }
}

fn shows(pods: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pods.iter().map(|(pod, count)| ((*pod).to_owned(), *count)).collect()
}

#[test]
fn a_settled_request_is_counted_once_and_with_its_duration() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    let before = node.begin();
    assert!(node.settle(id, None));
    // It began before, and shows what was then, whatever its read sees.
    let read = node.read(&before);
    let known = node.know(&before, read);
    assert_eq!(Node::shown(&before, &known), shows(&[("a", 3)]));
    node.ledger.end(&before);
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
    let view = node.begin();
    assert_eq!(view.settled[&id].series[&key(id, 500)].sum_ns, 5);
}

#[test]
fn a_request_that_was_settled_is_not_in_flight_and_is_forgotten_with_its_entry() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.in_flight.insert(goroutine(id), 100);
    let before = node.begin();
    assert!(node.settle(id, Some((goroutine(id), 100))));
    let view = node.begin();
    let seen = node.read(&view).in_flight.unwrap();
    assert_eq!((seen.active.get(&id), seen.entries), (None, 1));
    assert_eq!(seen.over(&view.settled), [], "its entry is there");
    // Its goroutine begins another request.
    node.in_flight.insert(goroutine(id), 200);
    let seen = node.read(&view).in_flight.unwrap();
    assert_eq!(seen.active.get(&id), Some(&1));
    let over = seen.over(&view.settled);
    assert_eq!(over, [(goroutine(id), 100)]);
    // A reading that began before knows nothing of it.
    assert_eq!(node.read(&before).in_flight.unwrap().over(&before.settled), []);
    assert!(node.ledger.is_settled(goroutine(id), 100));
    node.ledger.forget_requests(&over);
    assert!(!node.ledger.is_settled(goroutine(id), 100));
    assert_eq!(node.scrape(), shows(&[("a", 1)]), "what it counted stays");
}

#[test]
fn a_request_that_is_settled_again_meanwhile_is_not_forgotten() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    assert!(node.settle(id, Some((goroutine(id), 100))));
    assert!(node.settle(id, Some((goroutine(id), 200))));
    node.ledger.forget_requests(&[(goroutine(id), 100)]);
    assert!(node.ledger.is_settled(goroutine(id), 200));
}

#[test]
fn a_target_that_is_retired_during_a_reading_counts_once_and_its_entries_stay_until_that_is_over() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    node.end(id);
    let before = node.begin();
    let retirement = node.retire(id).unwrap();
    assert!(!node.ledger.is_quiet(retirement), "a reading looks at its entries");
    let after = node.begin();
    let read = node.read(&before);
    let known = node.know(&before, read);
    assert_eq!(Node::shown(&before, &known), shows(&[("a", 3)]));
    node.ledger.end(&before);
    assert!(node.ledger.is_quiet(retirement), "the other began after it");
    // Its entries are there still, and do not count.
    let read = node.read(&after);
    let known = node.know(&after, read);
    assert_eq!(Node::shown(&after, &known), shows(&[]));
    node.ledger.end(&after);
    node.remove(id, retirement);
    node.start(11, "a", "u1");
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
}

#[test]
fn a_container_that_restarts_goes_on_with_its_totals_at_every_moment() {
    let mut node = node();
    let first = node.start(10, "a", "u1");
    node.count(first, 3);
    node.end(first);
    let second = node.start(11, "a", "u1");
    node.count(second, 4);
    assert_eq!(node.scrape(), shows(&[("a", 7)]), "both have entries");
    let retirement = node.retire(first).unwrap();
    assert_eq!(node.scrape(), shows(&[("a", 7)]), "one is retired, and its entries are there");
    node.remove(first, retirement);
    assert_eq!(node.scrape(), shows(&[("a", 7)]), "they are gone");
    node.end(second);
    node.bury(second);
    node.start(12, "a", "u1");
    assert_eq!(node.scrape(), shows(&[("a", 7)]));
}

#[test]
fn processes_of_one_container_are_shown_as_one() {
    let mut node = node();
    let first = node.start(10, "a", "u1");
    let second = node.start(11, "a", "u1");
    let other = node.start(12, "b", "u2");
    node.count(first, 1);
    node.count(second, 2);
    node.count(other, 4);
    assert_eq!(node.scrape(), shows(&[("a", 3), ("b", 4)]));
}

#[test]
fn the_next_pod_of_a_name_counts_anew() {
    let mut node = node();
    let first = node.start(10, "a", "u1");
    node.count(first, 3);
    node.end(first);
    let second = node.start(11, "a", "u2");
    node.count(second, 4);
    assert_eq!(node.scrape(), shows(&[("a", 4)]), "the one before has entries");
    let view = node.begin();
    assert!(!view.targets.contains_key(&first));
    let retirement = node.ledger.retire(&view, vec![Leaver { id: first, totals: None }]).unwrap();
    node.ledger.end(&view);
    node.remove(first, retirement);
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
}

#[test]
fn the_totals_of_a_pod_are_not_those_of_the_next_of_its_name() {
    let mut node = node();
    let first = node.start(10, "a", "u1");
    node.count(first, 3);
    node.end(first);
    node.bury(first);
    let second = node.start(11, "a", "u2");
    node.count(second, 4);
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
    // Its own stay, whatever becomes of the other's.
    node.end(second);
    node.bury(second);
    node.ledger.forget_pods(&["u1".into()].into(), &HashSet::new());
    node.start(12, "a", "u2");
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
}

#[test]
fn a_pod_that_is_retired_after_the_next_of_its_name_leaves_that_its_totals() {
    let mut node = node();
    let old = node.start(10, "a", "u1");
    node.count(old, 3);
    let view = node.begin();
    let leaver = node.leaver(&view, old);
    node.ledger.end(&view);
    node.end(old);
    let new = node.start(11, "a", "u2");
    node.count(new, 4);
    node.end(new);
    node.bury(new);
    node.ledger.retire(&view, vec![leaver]).unwrap();
    node.start(12, "a", "u2");
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
}

#[test]
fn a_pod_that_is_gone_is_forgotten_once_nothing_of_it_lingers() {
    let mut node = node();
    let first = node.start(10, "a", "u1");
    node.count(first, 3);
    node.end(first);
    node.bury(first);
    let second = node.start(11, "a", "u1");
    node.end(second);
    let lingering = node.begin().pods();
    node.ledger.forget_pods(&["u1".into()].into(), &lingering);
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
    node.ledger.forget_pods(&["u1".into()].into(), &HashSet::new());
    assert_eq!(node.scrape(), shows(&[]));
}

#[test]
fn what_is_settled_while_a_target_is_added_up_is_not_left_behind() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    node.end(id);
    let view = node.begin();
    let leaver = node.leaver(&view, id);
    assert!(node.settle(id, None));
    assert_eq!(node.ledger.retire(&view, vec![leaver]), Err(Overtaken));
    node.ledger.end(&view);
    assert_eq!(node.scrape(), shows(&[("a", 4)]), "nothing has changed");
    node.bury(id);
    node.start(11, "a", "u1");
    assert_eq!(node.scrape(), shows(&[("a", 4)]));
}

#[test]
fn nobody_is_retired_twice() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    node.end(id);
    let view = node.begin();
    let (one, other) = (node.leaver(&view, id), node.leaver(&view, id));
    node.ledger.retire(&view, vec![one]).unwrap();
    assert_eq!(node.ledger.retire(&view, vec![other]), Err(Overtaken));
    node.start(11, "a", "u1");
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
}

#[test]
fn nothing_is_settled_of_a_target_that_is_retired_or_forgotten_or_of_the_next_with_its_id() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.end(id);
    let before = node.begin();
    let retirement = node.retire(id).unwrap();
    assert!(!node.settle(id, None));
    assert!(!node.ledger.settle(&before, &key(id, 500), 5, None), "its totals are retired");
    node.ledger.end(&before);
    let between = node.begin();
    node.remove(id, retirement);
    assert!(!node.settle(id, None));
    node.use_again(id, 11, "b", "u2");
    assert!(!node.ledger.settle(&between, &key(id, 500), 5, None), "whoever it is now, it was nobody then");
    assert!(node.settle(id, None));
}

impl Node {
    /// A process gets this id: the registry gives ids away one after another, and this one's turn has come again.
    fn use_again(&mut self, id: u32, pid: u32, pod: &str, uid: &str) {
        assert!(!self.registry.targets.contains_key(&id));
        while self.start(pid, pod, uid) != id {
            let other = self.registry.of_pid(pid).expect("it is a target").id;
            self.end(other);
            self.registry.forgotten(&[other].into());
        }
    }
}

#[test]
fn an_id_that_is_used_again_has_nothing_of_the_one_before_even_if_no_map_can_be_read() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    node.in_flight.insert(goroutine(id), 100);
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
    node.end(id);
    let retirement = node.retire(id).unwrap();
    // Read after it is retired, and kept as the last that is known while its entries are removed.
    let view = node.begin();
    let read = node.read(&view);
    node.remove(id, retirement);
    node.use_again(id, 11, "b", "u2");
    let known = node.know(&view, read);
    assert_eq!(Node::shown(&view, &known), shows(&[]));
    node.ledger.end(&view);
    assert_eq!(node.scrape_in_vain(), shows(&[]));
    node.count(id, 1);
    assert_eq!(node.scrape(), shows(&[("b", 1)]));
}

#[test]
fn what_was_known_of_a_target_goes_with_it_and_not_to_the_next_with_its_id() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    node.in_flight.insert(goroutine(id), 100);
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
    node.end(id);
    node.bury(id);
    node.use_again(id, 11, "b", "u2");
    assert_eq!(node.scrape_in_vain(), shows(&[]));
    let view = node.begin();
    let read = node.read_half(&view);
    let known = node.know(&view, read);
    let leaders = view.leaders();
    assert_eq!(known.in_flight().unwrap().active(&leaders), HashMap::new(), "not 1, and not 0");
    assert_eq!(view.kept(known.kept().unwrap(), &leaders), HashMap::new());
}

#[test]
fn a_read_that_fails_half_way_leaves_what_was_known_and_is_told() {
    let mut node = node();
    let (a, b) = (node.start(10, "a", "u1"), node.start(11, "b", "u2"));
    node.count(a, 3);
    node.count(b, 4);
    node.lost.insert(LostKey { target: a, reason: Reason::EndNotSeen as u32 }, 2);
    node.in_flight.insert(goroutine(a), 100);
    assert_eq!(node.scrape(), shows(&[("a", 3), ("b", 4)]));
    assert_eq!(node.ledger.unreadable(), []);
    node.count(a, 10);
    node.second += 1;
    let since = node.now().at;
    assert_eq!(node.scrape_in_vain(), shows(&[("a", 3), ("b", 4)]));
    node.second += 1;
    // What user space settles counts meanwhile.
    assert!(node.settle(b, None));
    let view = node.begin();
    let read = node.read_half(&view);
    let known = node.know(&view, read);
    assert_eq!(Node::shown(&view, &known), shows(&[("a", 3), ("b", 5)]));
    let leaders = view.leaders();
    let active = known.in_flight().unwrap().active(&leaders);
    assert_eq!(active, [(a, 1), (b, 0)].into());
    assert_eq!(view.losses(known.lost().unwrap(), &leaders), [((a, Reason::EndNotSeen as u32), 2)].into());
    assert_eq!(view.kept(known.kept().unwrap(), &leaders)[&a].parks, 1);
    let told = node.ledger.unreadable();
    let maps: Vec<_> = told.iter().map(|(map, _)| *map).collect();
    assert_eq!(maps, ["series", "inflight", "lost", "watch_states"]);
    assert!(told.iter().all(|(_, at)| *at == since), "since the first that failed");
    assert_eq!(node.scrape(), shows(&[("a", 13), ("b", 5)]));
    assert_eq!(node.ledger.unreadable(), []);
}

#[test]
fn what_was_never_read_is_not_known() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    let view = node.begin();
    let read = node.read_half(&view);
    let known = node.know(&view, read);
    assert!(known.series().is_none() && known.in_flight().is_none() && known.lost().is_none());
    assert_eq!(view.unsettled(known.series()).len(), 1, "no series is not nothing counted");
}

#[test]
fn a_target_that_came_after_the_last_good_read_is_not_taken_for_one_that_counted_nothing() {
    let mut node = node();
    let a = node.start(10, "a", "u1");
    node.count(a, 3);
    assert_eq!(node.scrape(), shows(&[("a", 3)]));
    let b = node.start(11, "b", "u2");
    node.count(b, 4);
    let view = node.begin();
    let read = node.read_half(&view);
    let known = node.know(&view, read);
    let unsettled: Vec<_> = view.unsettled(known.series()).into_iter().collect();
    assert_eq!(unsettled, [Labels::of_placement(&placement("b", "u2"))]);
    let active = known.in_flight().unwrap().active(&view.leaders());
    assert_eq!(active.get(&b), None);
    assert_eq!(active.get(&a), Some(&0));
}

#[test]
fn a_reading_that_is_overtaken_replaces_nothing() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.count(id, 3);
    let slow = node.begin();
    let read = node.read(&slow);
    node.count(id, 4);
    assert_eq!(node.scrape(), shows(&[("a", 7)]));
    node.know(&slow, read);
    node.ledger.end(&slow);
    assert_eq!(node.scrape_in_vain(), shows(&[("a", 7)]));
    // Nor does it tell of a failure that is over.
    let slow = node.begin();
    assert_eq!(node.scrape(), shows(&[("a", 7)]));
    let read = node.read_half(&slow);
    node.know(&slow, read);
    assert_eq!(node.ledger.unreadable(), []);
}

#[test]
fn what_user_space_counted_past_the_limit_is_lost_as_well() {
    let mut node = node();
    let id = node.start(10, "a", "u1");
    node.lost.insert(LostKey { target: 0, reason: Reason::EndNotSeen as u32 }, 1);
    let view = node.begin();
    assert!(node.ledger.settle(&view, &SeriesKey::overflow(Family::HttpServer, id), 5, None));
    node.ledger.end(&view);
    let view = node.begin();
    let read = node.read(&view);
    let known = node.know(&view, read);
    let losses = view.losses(known.lost().unwrap(), &view.leaders());
    let expected = [((0, Reason::EndNotSeen as u32), 1), ((id, Reason::SeriesOverflow as u32), 1)];
    assert_eq!(losses, expected.into());
}
