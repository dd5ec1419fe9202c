//! The agent's end of the stream: figures of pods, once a second, for the metrics-api. Figures are read once for all who listen,
//! and not at all while nobody does; a frame has only what has changed. Knows nothing of who scales on what.

pub(crate) mod rehearse;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    pin::Pin,
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use hyper::body::{Body, Frame as HttpFrame};
use instruments::{Fed, Kind as OfMetric};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, timeout},
};
use tracing::debug;

use super::wire::{Container, Family, Frame, Kind, Sample, Series, Unmeasured, UnmeasuredPod};
use crate::metrics::{Figure, Snapshot, visit};

/// Between frames.
const PERIOD: Duration = Duration::from_secs(1);
/// A listener that does not take a frame for so long is dropped: it comes back and is told everything anew.
const STALL: Duration = Duration::from_secs(5);

/// Figures that were read so long ago are not told to who comes: the agent stood still since, and reads anew at once.
const OLD: Duration = Duration::from_secs(2);

/// Families that are told beside those of instruments; see [`Fed`].
const OTHERS: [Fed; 14] = [
    fed("go_goroutines", OfMetric::Gauge, None),
    fed("go_goroutines_waiting", OfMetric::Gauge, Some("go_goroutines")),
    fed("go_sched_goroutines_runnable_goroutines", OfMetric::Gauge, None),
    fed("go_sched_latencies_seconds", OfMetric::Histogram, None),
    fed("go_cpu_classes_gc_total_cpu_seconds_total", OfMetric::Counter, None),
    fed("process_cpu_seconds_total", OfMetric::Counter, None),
    fed("process_resident_memory_bytes", OfMetric::Gauge, None),
    fed("go_sched_gomaxprocs_threads", OfMetric::Gauge, None),
    fed("go_cpu_periods_total", OfMetric::Counter, None),
    fed("go_cpu_throttled_periods_total", OfMetric::Counter, None),
    fed("go_gc_gomemlimit_bytes", OfMetric::Gauge, None),
    fed("go_memory_classes_total_bytes", OfMetric::Gauge, None),
    fed("go_memory_classes_heap_released_bytes", OfMetric::Gauge, None),
    fed(CPU_LIMIT, OfMetric::Gauge, None),
];

const fn fed(name: &'static str, kind: OfMetric, witness: Option<&'static str>) -> Fed {
    Fed { name, kind, witness }
}

/// Families that are told: name, kind, and witness.
pub(super) static FED: LazyLock<Vec<(&'static str, Kind, Option<&'static str>)>> = LazyLock::new(|| {
    let kind = |of: OfMetric| match of {
        OfMetric::Counter => Kind::Counter,
        OfMetric::Gauge => Kind::Gauge,
        // A summary's quantiles cannot be joined: a test holds the list against the contract.
        OfMetric::Histogram | OfMetric::Summary => Kind::Histogram,
    };
    instruments::fed().chain(&OTHERS).map(|it| (it.name, kind(it.kind), it.witness)).collect()
});
/// The container's, which each of its processes shows: it does not add up over them.
const CPU_LIMIT: &str = "go_cpu_limit_cores";

/// The figures of one moment, by container.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    unix_ms: u64,
    containers: BTreeMap<Name, Measured>,
    /// Pods that should have figures and have none; none where that is not known yet.
    unmeasured: Option<Unmeasured>,
}

/// Namespace, pod and container.
type Name = (String, String, String);

#[derive(Debug, Default)]
struct Measured {
    families: HashSet<&'static str>,
    series: Vec<(&'static str, Vec<String>, Amount)>,
    /// Where a series is in `series`, by the hash of its family and labels.
    places: HashMap<u64, usize>,
    /// Since when it is counted without a gap, and whether it began then.
    counted: Option<Counted>,
}

/// Since when all that a container did has been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Since then.
    pub(crate) since: Instant,
    /// It had done nothing before, and its counts were 0.
    pub(crate) from_start: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Amount {
    Gauge(f64),
    Counter(f64),
    Buckets { bounds: Arc<[f64]>, counts: Box<[u64]> },
}

/// Milliseconds since 1970 by the clock of the machine as it was when this was first asked: it may be set, and rates are over
/// these times.
fn unix_ms() -> u64 {
    unix_ms_of(Instant::now())
}

/// A moment by the same clock.
fn unix_ms_of(moment: Instant) -> u64 {
    let (at, first) = first_asked();
    let before = first.saturating_duration_since(moment);
    (at + moment.saturating_duration_since(first)).saturating_sub(before).as_millis() as u64
}

/// When this was first asked, by the machine's clock and by one that is never set.
fn first_asked() -> (Duration, Instant) {
    static FIRST: OnceLock<(Duration, Instant)> = OnceLock::new();
    *FIRST.get_or_init(|| (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now()))
}

/// A number that no other run of this program on the machine is likely to have, and never 0.
fn run() -> u64 {
    (first_asked().0.as_nanos() as u64 ^ u64::from(std::process::id()).rotate_left(40)).max(1)
}

impl Figures {
    /// Of a snapshot, what belongs to containers of pods.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut figures = Self { unix_ms: snapshot.read_at.map_or_else(unix_ms, unix_ms_of), ..Self::default() };
        let mut shared: HashMap<&'static str, Arc<[f64]>> = HashMap::new();
        visit(
            snapshot,
            |name| FED.iter().any(|(fed, _, _)| *fed == name),
            |family, labels, figure| {
                let label =
                    |name: &str| labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.to_string());
                let (Some(namespace), Some(pod), Some(container)) =
                    (label("namespace"), label("pod"), label("container"))
                else {
                    return;
                };
                let own = labels.iter().filter(|(name, _)| !matches!(*name, "namespace" | "pod" | "container"));
                let own = own.flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]).collect();
                let amount = match figure {
                    Figure::Gauge(number) => Amount::Gauge(number),
                    Figure::Counter(number) => Amount::Counter(number),
                    Figure::Buckets(bounds, counts) => Amount::Buckets {
                        bounds: shared.entry(family).or_insert_with(|| bounds.into()).clone(),
                        counts: counts.into(),
                    },
                };
                let measured = figures.containers.entry((namespace, pod, container)).or_default();
                measured.families.insert(family);
                let implied = FED.iter().filter(|(_, _, sign)| *sign == Some(family)).map(|(name, _, _)| *name);
                measured.families.extend(implied);
                measured.add(family, own, amount);
            },
        );
        figures
    }

    /// With what is known of containers that have figures.
    pub(crate) fn counted(mut self, of: impl Fn(&str, &str, &str) -> Option<Counted>) -> Self {
        for ((namespace, pod, container), measured) in &mut self.containers {
            measured.counted = of(namespace, pod, container);
        }
        self
    }

    /// With the pods that should have figures: namespace, name, whether it is right that one has none, and why it has none.
    /// Those that have some are left out.
    pub(crate) fn wanted(mut self, pods: impl Iterator<Item = (String, String, bool, String)>) -> Self {
        let measured: HashSet<(&str, &str)> =
            self.containers.keys().map(|(namespace, pod, _)| (namespace.as_str(), pod.as_str())).collect();
        let without = pods.filter(|(namespace, pod, ..)| !measured.contains(&(namespace.as_str(), pod.as_str())));
        let mut pods: Vec<UnmeasuredPod> = without
            .map(|(namespace, pod, expected, reason)| UnmeasuredPod { namespace, pod, expected, reason })
            .collect();
        pods.sort_unstable_by(|a, b| (&a.namespace, &a.pod).cmp(&(&b.namespace, &b.pod)));
        self.unmeasured = Some(Unmeasured { pods });
        self
    }
}

impl Measured {
    /// A container may run several processes, whose series have the same labels: they are added up.
    fn add(&mut self, family: &'static str, labels: Vec<String>, amount: Amount) {
        let mut hasher = DefaultHasher::new();
        (family, &labels).hash(&mut hasher);
        let hash = hasher.finish();
        let is_same = |(name, own, _): &(&'static str, Vec<String>, Amount)| *name == family && *own == labels;
        let same = match self.places.get(&hash) {
            None => None,
            Some(place) if self.series.get(*place).is_some_and(is_same) => Some(*place),
            // Two that have one hash.
            Some(_) => self.series.iter().position(is_same),
        };
        let Some((_, _, sum)) = same.and_then(|place| self.series.get_mut(place)) else {
            self.places.entry(hash).or_insert(self.series.len());
            self.series.push((family, labels, amount));
            return;
        };
        match (sum, amount) {
            (Amount::Gauge(most), Amount::Gauge(other)) if family == CPU_LIMIT => *most = most.max(other),
            (Amount::Gauge(sum), Amount::Gauge(more)) | (Amount::Counter(sum), Amount::Counter(more)) => *sum += more,
            (Amount::Buckets { counts, .. }, Amount::Buckets { counts: more, .. }) => {
                counts.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(more));
            }
            _ => {}
        }
    }
}

/// What one listener has been told, so that a frame has only what is new.
#[derive(Debug, Default)]
struct Told {
    begun: bool,
    next: u32,
    /// By name: the id, and whether its bounds were known.
    families: HashMap<&'static str, (u32, bool)>,
    containers: HashMap<Name, (Container, ToldSeries)>,
    unmeasured: Option<Unmeasured>,
    /// Of the frames.
    number: u64,
}

/// By family and labels.
type ToldSeries = HashMap<(u32, Vec<String>), ToldOne>;

#[derive(Debug)]
struct ToldOne {
    id: u32,
    last: Amount,
    /// The last frame whose figures had it.
    seen: u64,
}

impl Told {
    fn id(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn frame(&mut self, figures: &Figures) -> Frame {
        let mut frame = Frame { unix_ms: figures.unix_ms, first: !self.begun, ..Frame::default() };
        if frame.first {
            frame.run = run();
        }
        self.begun = true;
        self.number += 1;
        for (name, measured) in &figures.containers {
            for (family, _, amount) in &measured.series {
                self.family(family, Some(amount), &mut frame);
            }
            let mut families: Vec<u32> =
                measured.families.iter().filter_map(|family| self.family(family, None, &mut frame)).collect();
            families.sort_unstable();
            self.container(name, families, measured.counted, &mut frame);
            for (family, labels, amount) in &measured.series {
                self.sample(name, family, labels, amount, &mut frame);
            }
            self.leave(name, &mut frame);
        }
        let gone: Vec<Name> =
            self.containers.keys().filter(|it| !figures.containers.contains_key(*it)).cloned().collect();
        frame.gone = gone.iter().filter_map(|name| Some(self.containers.remove(name)?.0.id)).collect();
        if figures.unmeasured.is_some() && figures.unmeasured != self.unmeasured {
            self.unmeasured.clone_from(&figures.unmeasured);
            frame.unmeasured.clone_from(&figures.unmeasured);
        }
        frame
    }

    /// Tells of series that a container has no longer.
    fn leave(&mut self, name: &Name, frame: &mut Frame) {
        let number = self.number;
        let Some((_, series)) = self.containers.get_mut(name) else { return };
        series.retain(|_, told| {
            let stays = told.seen == number;
            if !stays {
                if matches!(told.last, Amount::Gauge(_)) {
                    frame.samples.push(Sample { series: told.id, ..Sample::default() });
                }
                frame.gone_series.push(told.id);
            }
            stays
        });
    }

    /// The family's id; it is named where it has not been, and anew once a histogram's bounds are known.
    fn family(&mut self, name: &'static str, amount: Option<&Amount>, frame: &mut Frame) -> Option<u32> {
        let (_, kind, _) = FED.iter().find(|(fed, _, _)| *fed == name)?;
        let bounds = if let Some(Amount::Buckets { bounds, .. }) = amount { Some(bounds.to_vec()) } else { None };
        if let Some((id, known)) = self.families.get(name)
            && (*known || bounds.is_none())
        {
            return Some(*id);
        }
        let id = self.id();
        self.families.insert(name, (id, bounds.is_some()));
        // Nothing has happened yet: any bounds will do for nothing.
        let bounds = bounds.unwrap_or_else(|| if *kind == Kind::Histogram { vec![1.0] } else { Vec::new() });
        frame.families.push(Family { id, name: name.to_owned(), kind: (*kind).into(), bounds });
        Some(id)
    }

    fn container(&mut self, name: &Name, families: Vec<u32>, counted: Option<Counted>, frame: &mut Frame) {
        let counted_since_ms = counted.map_or(0, |it| unix_ms_of(it.since));
        let from_start = counted.is_some_and(|it| it.from_start);
        let same = |told: &Container| {
            told.families == families && (told.counted_since_ms, told.from_start) == (counted_since_ms, from_start)
        };
        let known = self.containers.get(name).map(|(told, _)| (told.id, same(told)));
        if let Some((_, true)) = known {
            return;
        }
        let id = known.map_or_else(|| self.id(), |(id, _)| id);
        let (namespace, pod, container) = name.clone();
        let told = Container { id, namespace, pod, container, families, counted_since_ms, from_start };
        frame.containers.push(told.clone());
        self.containers.entry(name.clone()).or_default().0 = told;
    }

    fn sample(&mut self, name: &Name, family: &'static str, labels: &[String], amount: &Amount, frame: &mut Frame) {
        let Some((family, _)) = self.families.get(family).copied() else { return };
        let (next, seen) = (self.next + 1, self.number);
        let Some((container, series)) = self.containers.get_mut(name) else { return };
        // Looked up by a whole key, since few labels are cheap to copy and a nested map is not.
        let key = (family, labels.to_vec());
        let before = series.get_mut(&key).map(|told| {
            told.seen = seen;
            &*told
        });
        let id = before.map_or(next, |told| told.id);
        let sample = match (amount, before.map(|told| &told.last)) {
            (amount, Some(before)) if amount == before => return,
            (Amount::Gauge(value) | Amount::Counter(value), _) => {
                Sample { series: id, value: *value, ..Sample::default() }
            }
            (Amount::Buckets { counts, .. }, before) => {
                let before = if let Some(Amount::Buckets { counts, .. }) = before { &counts[..] } else { &[] };
                let differs = |(bucket, count): &(usize, &u64)| before.get(*bucket).copied().unwrap_or(0) != **count;
                let changed = counts.iter().enumerate().filter(differs);
                let (buckets, counts) = changed.map(|(bucket, count)| (bucket as u32, *count)).unzip();
                Sample { series: id, buckets, counts, ..Sample::default() }
            }
        };
        if before.is_none() {
            self.next = next;
            frame.series.push(Series { id, container: container.id, family, labels: labels.to_vec() });
        }
        series.insert(key, ToldOne { id, last: amount.clone(), seen });
        frame.samples.push(sample);
    }
}

/// Gives every listener its stream. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Feed {
    figures: Arc<Mutex<Option<watch::Receiver<Arc<Figures>>>>>,
}

impl Feed {
    /// A new listener's stream. `read` is called about once a second, on a thread that may block, while there are listeners.
    pub(crate) fn listen(&self, read: impl Fn() -> Figures + Clone + Send + 'static) -> Stream {
        let mut slot = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let running = slot.as_ref().filter(|it| it.has_changed().is_ok());
        let figures = running.cloned().unwrap_or_else(|| {
            let (sender, receiver) = watch::channel(Arc::new(Figures::default()));
            tokio::spawn(tick(read, sender));
            receiver
        });
        // Kept only to be cloned: a receiver of ours would keep the reading going.
        *slot = Some(figures.clone());
        drop(slot);
        let (sender, frames) = mpsc::channel(2);
        tokio::spawn(tell(figures, sender));
        Stream { frames }
    }
}

/// Reads figures while somebody listens.
async fn tick(read: impl Fn() -> Figures + Clone + Send + 'static, sender: watch::Sender<Arc<Figures>>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // One receiver is the feed's own.
        if sender.receiver_count() <= 1 {
            return;
        }
        let read = read.clone();
        let Ok(figures) = tokio::task::spawn_blocking(read).await else { return };
        // While the kernel's map cannot be read the figures are those of before: told again, they would say that nothing was counted
        // since. Who listens hears nothing, and knows what to make of that.
        sender.send_if_modified(|last| {
            let is_new = figures.unix_ms > last.unix_ms;
            if is_new {
                *last = Arc::new(figures);
            }
            is_new
        });
    }
}

/// Tells one listener.
async fn tell(mut figures: watch::Receiver<Arc<Figures>>, sender: mpsc::Sender<Bytes>) {
    let mut told = Told::default();
    // Whoever comes later begins with what was read last, if that is of now.
    if unix_ms().saturating_sub(figures.borrow().unix_ms) > OLD.as_millis() as u64 {
        figures.borrow_and_update();
    }
    while figures.changed().await.is_ok() {
        let now = figures.borrow_and_update().clone();
        let frame = told.frame(&now).to_bytes();
        match timeout(STALL, sender.send(frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                debug!("a listener of the HPA's stream does not take its frames");
                return;
            }
        }
    }
}

/// A response's body that ends when its listener stalls, or the agent does.
pub(crate) struct Stream {
    frames: mpsc::Receiver<Bytes>,
}

impl Stream {
    /// Nothing.
    fn empty() -> Self {
        let (_, frames) = mpsc::channel(1);
        Self { frames }
    }
}

impl Body for Stream {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<HttpFrame<Bytes>, std::io::Error>>> {
        self.get_mut().frames.poll_recv(context).map(|frame| frame.map(|bytes| Ok(HttpFrame::data(bytes))))
    }
}

#[cfg(test)]
mod tests;
