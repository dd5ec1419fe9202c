//! What is left to measure of a process that has replaced functions of its own in memory: nothing is attached to those. Knows
//! nothing of how that is seen.

use std::{collections::BTreeSet, io};

use instruments::{Change, PlannedProbe, leave_out};

use super::Inspection;
use crate::process::{Patched, Process, patched};

fn change(planned: &PlannedProbe, how: Patched) -> Change {
    let reason = format!("{how} of {} in its memory", planned.function);
    Change { is_writable: how == Patched::Writable, ..Change::new(planned, &reason) }
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
        Ok(found.into_iter().map(|(planned, how)| change(planned, how)).collect())
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
