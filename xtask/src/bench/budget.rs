//! `bench budget`: not there yet, and says so.

use super::report::Section;

/// Says that there is nothing to measure.
pub(super) fn run() -> Section {
    let mut section = Section::new("budget", "The overhead budget is not built yet: there is nothing to measure.");
    section.note("When gopulse can limit what its probes cost, this command will show that it keeps the limit.");
    section
}
