//! What is planned of a program: probes, and what is off and why. Knows nothing of how that is found out.

use std::collections::BTreeSet;

use exporter_ebpf::{
    facts::Facts,
    feature::{Feature, Part},
    probe::Probe,
    target::TargetConfig,
};
use serde::{Serialize, Serializer};

/// What can be measured of a program.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Sites.
    pub probes: Vec<PlannedProbe>,
    /// What is off.
    pub disabled: Vec<Disabled>,
    /// What the program has no code for: nothing is off there.
    pub not_used: Vec<Part>,
    /// What the kernel side is told; the target's id and limits are still to be set.
    pub config: TargetConfig,
    /// The same for its instruments; addresses are those of the file.
    pub facts: Facts,
    /// Whether it uses what a mux may be put behind that a request's own pattern does not tell of.
    pub nests_muxes: bool,
    /// Routers in it.
    pub routes_from: Vec<RouteSource>,
}

/// A router that was recognised in a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteSource {
    /// As people call it.
    pub router: &'static str,
    /// Its module's version; empty where that is not known.
    pub version: String,
    /// Where the routes of requests that it is given come from, for a person.
    pub from: String,
}

/// One site of one probe.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedProbe {
    /// Which program.
    #[serde(serialize_with = "probe_name")]
    pub probe: Probe,
    /// The function probed.
    pub function: String,
    /// The instruction under the probe.
    pub instruction: String,
    /// Its distance from the function's start, bytes.
    pub function_offset: u32,
    /// Where it is in the file, bytes: what the kernel is given.
    pub file_offset: u64,
    /// What the kernel does there.
    pub cost: String,
    /// Attached only when it is needed.
    pub on_demand: bool,
}

impl PlannedProbe {
    /// Where the bytes are that say what is at the site: from the function's start to beyond the longest instruction (15 bytes
    /// on amd64) at the site. Offset in the file and length.
    pub fn span(&self) -> (u64, u64) {
        let into = u64::from(self.function_offset);
        (self.file_offset.saturating_sub(into), into + 16)
    }

    /// What it is for.
    pub const fn feature(&self) -> Feature {
        self.probe.feature()
    }
}

/// Something that is off.
#[derive(Clone, Debug, Serialize)]
pub struct Disabled {
    /// What.
    #[serde(rename = "feature", serialize_with = "part_name")]
    pub part: Part,
    /// Why, for a person.
    pub reason: String,
}

/// As names.
pub fn part_names<S: Serializer>(parts: &[Part], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(parts.iter().map(|part| part.name()))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn part_name<S: Serializer>(part: &Part, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(part.name())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn probe_name<S: Serializer>(probe: &Probe, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(probe.program())
}

/// A function that is to be probed and cannot be: its code in a process is not the file's, or the compiler has inlined it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// As Go spells it.
    pub function: String,
    /// What is off without it.
    pub part: Part,
    /// Whether it is only being changed.
    pub is_writable: bool,
    /// For a person: "the program has changed the code of runtime.Goexit in its memory".
    pub reason: String,
}

impl Change {
    /// One that a probe cannot be put into, for this reason.
    pub fn new(planned: &PlannedProbe, reason: &str) -> Self {
        Self {
            function: planned.function.clone(),
            part: planned.probe.part(),
            is_writable: false,
            reason: reason.to_owned(),
        }
    }
}

/// Leaves out the probes on changed functions, and those that mean nothing without them: of what begins and ends all, since a
/// start without its end would be in flight for ever. What is not used anyway is not off.
pub fn leave_out(
    probes: &mut Vec<PlannedProbe>,
    disabled: &mut Vec<Disabled>,
    not_used: &[Part],
    changes: &BTreeSet<Change>,
) {
    let mut off: Vec<Disabled> = Vec::new();
    for change in changes {
        let feature = change.part.feature();
        // Parts by which a feature measures something share their starts.
        let together = |part: &Part| part.feature() == feature && part.is_enough();
        let parts =
            Part::ALL.iter().copied().filter(|part| *part == change.part || change.part.is_enough() && together(part));
        for part in parts {
            if !not_used.contains(&part) && !disabled.iter().chain(&off).any(|it| it.part == part) {
                off.push(Disabled { part, reason: change.reason.clone() });
            }
        }
        probes.retain(|it| {
            let goes_along = change.part.is_enough() && it.feature() == feature;
            !goes_along && it.function != change.function
        });
    }
    // First: why nothing can be measured, if it cannot, is the first reason.
    disabled.splice(0..0, off);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(probe: Probe, function: &str) -> PlannedProbe {
        PlannedProbe {
            probe,
            function: function.into(),
            instruction: String::new(),
            function_offset: 6,
            file_offset: 4096,
            cost: String::new(),
            on_demand: false,
        }
    }

    fn left_without(function: &str) -> (Vec<String>, Vec<Disabled>) {
        let mut probes = vec![
            planned(Probe::HttpStart, "start"),
            planned(Probe::Http1End, "end"),
            planned(Probe::Http2End, "end2"),
            planned(Probe::HttpHijack, "hijack"),
            planned(Probe::HttpPanic, "panic"),
            planned(Probe::HttpPanic, "exit"),
            planned(Probe::GoPark, "park"),
            planned(Probe::GoRun, "run"),
            planned(Probe::StwStart, "world"),
            planned(Probe::StwEnd, "world"),
        ];
        let mut disabled = Vec::new();
        let changed = probes.iter().filter(|it| it.function == function);
        let changes = changed.map(|it| Change::new(it, "no")).collect();
        leave_out(&mut probes, &mut disabled, &[Part::XnetHttp2Server], &changes);
        (probes.into_iter().map(|it| it.function).collect(), disabled)
    }

    #[test]
    fn what_needs_a_changed_function_is_off_and_nothing_else() {
        for (function, left, off) in [
            ("exit", "start end end2 hijack panic park run world world", vec![Part::Panic]),
            ("end2", "park run world world", vec![Part::Http1Server, Part::Http2Server]),
            ("park", "start end end2 hijack panic exit world world", vec![Part::Blocking]),
            ("world", "start end end2 hijack panic exit park run", vec![Part::Stw]),
            ("other", "start end end2 hijack panic exit park run world world", vec![]),
        ] {
            let (probes, disabled) = left_without(function);
            assert_eq!(probes.join(" "), left);
            let parts: Vec<Part> = disabled.iter().map(|it| it.part).collect();
            assert_eq!(parts, off, "{function}");
        }
    }
}
