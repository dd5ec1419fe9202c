//! What an instrument is: data, over which nothing is generic.

use exporter_ebpf::feature::Feature;

use crate::{Described, Fed, Open, inlined::Calls, planner::Planner, unmeasured::Unmeasurable};

/// An instrument.
#[derive(Debug)]
pub struct Instrument {
    /// By which name it is asked for.
    pub feature: Feature,
    /// Functions that it wants to find in a program.
    pub functions: &'static [&'static str],
    /// Structs, and of each the fields whose offsets it needs.
    pub layouts: &'static [(&'static str, &'static [&'static str])],
    /// Calls to its functions that every build has unless the compiler has inlined them.
    pub(crate) calls: &'static [Calls],
    /// What it would be expected to measure and does not.
    pub(crate) unmeasured: &'static [Unmeasurable],
    /// Plans its probes. A part that cannot be had is off, with its reason.
    pub(crate) plan: fn(&mut Planner<'_>),
    /// Its series.
    pub families: &'static [Described],
    /// Its gauges of what is under way.
    pub open: &'static [Open],
    /// What of it the metrics-api is told.
    pub fed: &'static [Fed],
}
