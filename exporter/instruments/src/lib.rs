//! What gopulse measures: for each instrument which functions of a Go program are probed, what of its structs must be known, and how
//! its series read. An instrument is a folder and a line of [`ALL`]. Pure: knows nothing of processes, the kernel and clocks.

mod desc;
mod family;
mod grpc;
mod inlined;
mod instrument;
mod patchers;
mod planned;
mod planner;
mod unmeasured;

pub mod blocking;
mod grpc_server;
mod http_client;
mod http_server;
mod run_queue;
pub mod stw;

pub use self::{
    desc::{Desc, Kind, Stability},
    family::{Described, Fed, Known, LabelSet, OVERFLOW, Open, Shown, Texts, UNKNOWN, Value, past_the_limit},
    instrument::Instrument,
    planned::{Change, Disabled, Planned, PlannedProbe, RouteSource, leave_out, part_names},
    planner::{Sites, functions, layouts, plan},
    unmeasured::{Unmeasured, unmeasured},
};
pub use exporter_ebpf::{
    feature::{Feature, Part},
    probe::Probe,
};

use exporter_ebpf::key::Family;

/// All instruments, in the order in which their metrics are shown.
pub static ALL: [&Instrument; 6] = [
    &http_server::INSTRUMENT,
    &http_client::INSTRUMENT,
    &grpc_server::INSTRUMENT,
    &blocking::INSTRUMENT,
    &stw::INSTRUMENT,
    &run_queue::INSTRUMENT,
];

/// A family as a metric.
///
/// # Panics
/// Never: a test holds [`ALL`] against the list of families.
pub fn describe(family: Family) -> &'static Described {
    families().find(|it| it.family == family).expect("each family is an instrument's")
}

/// All families of durations.
pub fn families() -> impl Iterator<Item = &'static Described> {
    ALL.iter().flat_map(|it| it.families)
}

/// The metrics of all instruments, in the order in which they are shown.
pub fn contract() -> impl Iterator<Item = &'static Desc> {
    let of = |it: &&'static Instrument| it.families.iter().map(|it| &it.desc).chain(it.open.iter().map(|it| &it.desc));
    ALL.iter().flat_map(of)
}

/// Whether a metric is a gauge of what is under way.
pub fn is_open(desc: &Desc) -> bool {
    ALL.iter().flat_map(|it| it.open).any(|it| it.desc.name == desc.name)
}

/// What of the instruments the metrics-api is told.
pub fn fed() -> impl Iterator<Item = &'static Fed> {
    ALL.iter().flat_map(|it| it.fed)
}
