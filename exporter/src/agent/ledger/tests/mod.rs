//! Each test plays a node: the targets are those of a registry, and the kernel's maps are maps of the standard library.

mod failing;
mod retiring;
mod settling;

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use exporter_ebpf::{
    loss::{LostKey, Reason},
    span::Lane,
    wait::WaitState,
};
use instruments::Value;

use super::*;
use crate::{
    agent::registry::{Candidate, Moment, Registry},
    kubernetes::Placement,
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
    exporter_ebpf::http::request_key(id, 0xc000)
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
        let kept = view.targets.keys().map(|id| (*id, WaitState { parks: 1, ..WaitState::default() })).collect();
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
        self.ledger.end(view.number);
        Self::shown(&view, &known)
    }

    /// A scrape that can read no map.
    fn scrape_in_vain(&mut self) -> BTreeMap<String, u64> {
        let view = self.begin();
        let read = self.read_half(&view);
        let known = self.know(&view, read);
        self.ledger.end(view.number);
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
        self.ledger.end(view.number);
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
        self.ledger.end(view.number);
        settled
    }

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

fn shows(pods: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pods.iter().map(|(pod, count)| ((*pod).to_owned(), *count)).collect()
}
