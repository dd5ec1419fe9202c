//! How long goroutines are blocked: one probe where each parks itself, one where the scheduler runs one again.

mod reasons;

use exporter_ebpf::{
    feature::{Feature, Part},
    key::{Family, SeriesKey},
    probe::Probe,
};

pub use self::reasons::reason;
use crate::{
    Desc, Described, Fed, Instrument, Kind, Known, LabelSet, Stability, UNKNOWN,
    family::{WAIT_BOUNDS, no_text, of_reason},
    planner::Planner,
};

const PARK: &str = "runtime.gopark";
const EXECUTE: &str = "runtime.execute";

pub(super) static INSTRUMENT: Instrument = Instrument {
    feature: Feature::Blocking,
    functions: &[PARK, EXECUTE],
    // A wait that outlasts its window is followed in `runtime.g`.
    layouts: &[("runtime.g", &["atomicstatus", "trackingSeq"])],
    // runtime/proc.go, runtime/chan.go, runtime/select.go, runtime/netpoll.go.
    calls: &[
        (EXECUTE, &["runtime.schedule"]),
        (PARK, &["runtime.chanrecv"]),
        (PARK, &["runtime.chansend"]),
        (PARK, &["runtime.selectgo"]),
        (PARK, &["runtime.netpollblock"]),
    ],
    unmeasured: &[],
    plan,
    families: &[Described {
        family: Family::Blocking,
        desc: Desc {
            name: "go_goroutine_blocked_seconds",
            kind: Kind::Histogram,
            help: "How long goroutines were blocked, from parking until they ran again, by the runtime's wait reason; scaled up \
                   where the probes are attached for a share of the time (exporter_probe_sampled_ratio).",
            of_target: true,
            labels: &["reason"],
            stability: Stability::Development,
            source: "probes on runtime.gopark and runtime.execute",
        },
        sum: Some("go_goroutine_blocked_seconds_sum"),
        bounds: &WAIT_BOUNDS,
        labels,
        text: no_text,
    }],
    open: &[],
    fed: &[Fed { name: "go_goroutine_blocked_seconds_sum", kind: Kind::Counter, witness: None }],
};

fn labels(key: &SeriesKey, known: &Known) -> LabelSet {
    let SeriesKey { text: _, target: _, family: _, text_kind: _, code, verb: _, spare: _ } = *key;
    let name = u8::try_from(code).ok().and_then(|number| reason(known.go_minor, number));
    of_reason(key, name.unwrap_or(UNKNOWN))
}

fn plan(planner: &mut Planner<'_>) {
    planner.part(Part::Blocking, |planner| {
        planner.known_runtime()?;
        planner.probe(Probe::GoRun, EXECUTE)?;
        planner.probe(Probe::GoPark, PARK)
    });
}
