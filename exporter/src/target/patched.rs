//! What is left to measure of a process that has replaced functions of its own in memory: nothing is attached to those. Knows
//! nothing of how that is seen.

use std::{collections::BTreeSet, io};

use super::{
    Feature, Part,
    inspection::{Disabled, Inspection, PlannedProbe, SERVERS},
};
use crate::process::{Patched, Process, patched};

/// A function that is to be probed, whose code in a process is not the file's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Change {
    /// As Go spells it.
    pub(crate) function: String,
    /// What is off without it.
    pub(crate) part: Part,
    /// Whether it is only being changed.
    pub(crate) is_writable: bool,
    /// For a person: "the program has changed the code of runtime.Goexit in its memory".
    pub(crate) reason: String,
}

impl Change {
    /// One that a probe cannot be put into, for this reason.
    pub(super) fn new(planned: &PlannedProbe, reason: &str) -> Self {
        Self {
            function: planned.function.clone(),
            part: planned.probe.part(),
            is_writable: false,
            reason: reason.to_owned(),
        }
    }

    fn of(planned: &PlannedProbe, how: Patched) -> Self {
        let reason = format!("{how} of {} in its memory", planned.function);
        Self { is_writable: how == Patched::Writable, ..Self::new(planned, &reason) }
    }
}

impl Inspection {
    /// Which functions of these probes a process does not run as they are in its file. Waits for its memory.
    ///
    /// # Errors
    /// As [`patched`].
    pub(crate) fn changes_in(
        &self,
        process: &Process,
        wanted: impl Fn(&PlannedProbe) -> bool,
    ) -> io::Result<BTreeSet<Change>> {
        let sites = self.probes.iter().filter(|it| wanted(it)).map(|it| (it.span(), it));
        let found = patched(process, sites)?;
        Ok(found.into_iter().map(|(planned, how)| Change::of(planned, how)).collect())
    }

    /// The same with some of its probes alone.
    pub(crate) fn of_sites(&self, wanted: impl Fn(&PlannedProbe) -> bool) -> Self {
        let mut some = self.clone();
        some.probes.retain(wanted);
        some
    }

    /// The same for a process with these changes.
    pub(crate) fn without(&self, changes: &BTreeSet<Change>) -> Self {
        let mut left = self.clone();
        leave_out(&mut left.probes, &mut left.disabled, &left.not_used, changes);
        left
    }
}

/// Leaves out the probes on changed functions, and those that mean nothing without them: of a request's start and ends all, since a
/// start without its end would be in flight for ever. What is not used anyway is not off.
pub(super) fn leave_out(
    probes: &mut Vec<PlannedProbe>,
    disabled: &mut Vec<Disabled>,
    not_used: &[Part],
    changes: &BTreeSet<Change>,
) {
    let mut off: Vec<Disabled> = Vec::new();
    for change in changes {
        let is_of_a_server = SERVERS.contains(&change.part);
        let parts = if is_of_a_server { &SERVERS[..] } else { std::slice::from_ref(&change.part) };
        for &part in parts {
            if !not_used.contains(&part) && !disabled.iter().chain(&off).any(|it| it.part == part) {
                off.push(Disabled { part, reason: change.reason.clone() });
            }
        }
        probes.retain(|it| {
            // Of requests only a server's start and ends take all else with them.
            let all_go = is_of_a_server || change.part.feature() != Feature::Http;
            let together = all_go && it.feature() == change.part.feature();
            !together && it.function != change.function
        });
    }
    // First: why nothing can be measured, if it cannot, is the first reason.
    disabled.splice(0..0, off);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Probe;

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
        let changes = changed.map(|it| Change::of(it, Patched::Changed)).collect();
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
        let (_, disabled) = left_without("exit");
        assert_eq!(disabled[0].reason, "the program has changed the code of exit in its memory");
    }
}
