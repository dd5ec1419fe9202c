//! Stops of the world: probes that are hit a few times a cycle of the garbage collector.

mod reasons;

use exporter_ebpf::{
    feature::{Feature, Part},
    key::{Family, SeriesKey},
    probe::Probe,
};

use self::reasons::stw_reason;
use crate::{
    Desc, Described, Instrument, Kind, Known, LabelSet, Stability,
    family::{WAIT_BOUNDS, no_text, of_reason},
    planner::Planner,
};

const STOP: &str = "runtime.stopTheWorldWithSema";
const START: &str = "runtime.startTheWorldWithSema";

pub(super) static INSTRUMENT: Instrument = Instrument {
    feature: Feature::Stw,
    functions: &[STOP, START],
    layouts: &[],
    calls: &[],
    unmeasured: &[],
    plan,
    families: &[Described {
        family: Family::Stw,
        desc: Desc {
            name: "go_stw_pause_seconds",
            kind: Kind::Histogram,
            help: "How long the world was stopped, from the beginning of the stop until it was started again, by the runtime's \
                   reason (unknown before Go 1.21).",
            of_target: true,
            labels: &["reason"],
            stability: Stability::Development,
            source: "probes on runtime.stopTheWorldWithSema and runtime.startTheWorldWithSema",
        },
        sum: None,
        bounds: &WAIT_BOUNDS,
        labels,
        text: no_text,
    }],
    open: &[],
    fed: &[],
};

fn labels(key: &SeriesKey, known: &Known) -> LabelSet {
    let SeriesKey { text: _, target: _, family: _, text_kind: _, code, verb: _, spare: _ } = *key;
    of_reason(key, stw_reason(known.go_minor, code))
}

fn plan(planner: &mut Planner<'_>) {
    planner.part(Part::Stw, |planner| {
        match planner.known_runtime()? {
            22.. => planner.probe(Probe::StwStart, START)?,
            21 => planner.probe(Probe::StwStop, STOP)?,
            _ => planner.probe(Probe::StwStopBare, STOP)?,
        }
        // A few hits a cycle: what the site costs does not matter, and what is returned does.
        planner.probe(Probe::StwEnd, START)
    });
}
