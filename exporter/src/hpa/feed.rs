//! The agent's end of the stream: figures of pods, once a second, for the metrics-api. Figures are read once for all who listen,
//! and not at all while nobody does; a frame has only what has changed. Knows nothing of who scales on what.

pub(crate) mod rehearse;
mod told;

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

use self::told::Told;
use super::wire::{Kind, Unmeasured, UnmeasuredPod};
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
