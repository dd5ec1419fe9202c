//! The runtime's own words for why the world was stopped. The numbers are what `startTheWorldWithSema` is handed.
//!
//! Source: runtime/proc.go (`stwReasonStrings`) of Go 1.21 to 1.27.

use crate::UNKNOWN;

/// Why the world was stopped (Go 1.21 on); [`UNKNOWN`] before.
pub(super) fn stw_reason(minor: u16, number: u16) -> &'static str {
    if !(21..=27).contains(&minor) {
        return UNKNOWN;
    }
    STW_21.get(usize::from(number)).copied().unwrap_or(UNKNOWN)
}

/// Go 1.21 to 1.27.
static STW_21: [&str; 17] = [
    "unknown",
    "GC mark termination",
    "GC sweep termination",
    "write heap dump",
    "goroutine profile",
    "goroutine profile cleanup",
    "all goroutines stack trace",
    "read mem stats",
    "AllThreadsSyscall",
    "GOMAXPROCS",
    "start trace",
    "stop trace",
    "CountPagesInUse (test)",
    "ReadMetricsSlow (test)",
    "ReadMemStatsSlow (test)",
    "PageCachePagesLeaked (test)",
    "ResetDebugLog (test)",
];
