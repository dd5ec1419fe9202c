//! The clock that the kernel side and Go's nanotime share. Knows nothing of who asks.

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC`, nanoseconds.
pub(crate) fn monotonic_ns() -> u64 {
    // It fails for a clock that the kernel does not have, and for memory that is not there (clock_gettime(2)). A 0 in its place
    // would make all that was ever begun too old, or open a window for good.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("Linux has this clock");
    now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs()
}
