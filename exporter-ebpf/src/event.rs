//! Rare events that the kernel side sends through the ring buffer: never one per request.

/// A process called `execve` (tracepoint `sched_process_exec`).
pub const EXEC: u32 = 1;
/// The main thread of a measured process ended (tracepoint `sched_process_exit`).
pub const EXIT: u32 = 2;
/// Goroutines that serve requests panicked or called `runtime.Goexit`; their entries wait in `PANICS`. At most one such event
/// is on its way: user space takes the mark in `PENDING` away before it looks.
pub const PANIC: u32 = 3;
/// `INFLIGHT` refused a request. At most one such event is on its way, as with [`PANIC`].
pub const IN_FLIGHT_FULL: u32 = 4;
/// Connections were taken over on other goroutines than their own; they wait in `HIJACKS`. At most one such event is on its way, as
/// with [`PANIC`].
pub const HIJACK: u32 = 5;
/// Elements of `PENDING`: one for each kind of event.
pub const KINDS: u32 = HIJACK + 1;

/// Bytes of the event ring. A power of two and a multiple of the page size, 64 KiB pages included. 256 KiB hold 10,922
/// events (16 bytes plus the ring's 8-byte header each), more than a node starts processes in a scan interval.
pub const RING_BYTES: u32 = 256 * 1024;

/// One event.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// [`EXEC`], [`EXIT`], [`PANIC`], [`IN_FLIGHT_FULL`] or [`HIJACK`].
    pub kind: u32,
    /// Process id (thread group id) as the initial PID namespace sees it.
    pub pid: u32,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
}
