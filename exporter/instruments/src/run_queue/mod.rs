//! How long threads wait for a CPU, by the scheduler's tracepoints: nothing is probed in the program.

use exporter_ebpf::{
    feature::Feature,
    key::{Family, SeriesKey},
};

use crate::{
    Desc, Described, Fed, Instrument, Kind, Known, LabelSet, Stability,
    family::{WAIT_BOUNDS, no_text},
};

pub(super) static INSTRUMENT: Instrument = Instrument {
    feature: Feature::RunQueue,
    functions: &[],
    layouts: &[],
    calls: &[],
    unmeasured: &[],
    plan: |_| {},
    families: &[Described {
        family: Family::RunQueue,
        desc: Desc {
            name: "go_runqueue_latency_seconds",
            kind: Kind::Histogram,
            help: "How long threads that could run waited for a CPU.",
            of_target: true,
            labels: &[],
            stability: Stability::Development,
            source: "the kernel's tracepoints sched_wakeup and sched_switch",
        },
        sum: None,
        bounds: &WAIT_BOUNDS,
        labels,
        text: no_text,
    }],
    open: &[],
    fed: &[Fed { name: "go_runqueue_latency_seconds", kind: Kind::Histogram, witness: None }],
};

fn labels(key: &SeriesKey, _: &Known) -> LabelSet {
    let SeriesKey { text: _, target: _, family: _, text_kind: _, code: _, verb: _, spare: _ } = *key;
    LabelSet::new()
}
