//! Rare events that the kernel side sends through the ring buffer: never one per request.

/// A process called `execve` (tracepoint `sched_process_exec`).
pub const EXEC: u32 = 1;
/// The main thread of a measured process ended (tracepoint `sched_process_exit`).
pub const EXIT: u32 = 2;
/// A goroutine that serves a request panicked or called `runtime.Goexit`; its entry waits in `PANICS`.
pub const PANIC: u32 = 3;

/// Bytes of the event ring. A power of two and a multiple of the page size, 64 KiB pages included. 256 KiB hold 10,922
/// events (16 bytes plus the ring's 8-byte header each), more than a node starts processes in a scan interval.
pub const RING_BYTES: u32 = 256 * 1024;

/// One event.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// [`EXEC`], [`EXIT`] or [`PANIC`].
    pub kind: u32,
    /// Process id (thread group id) as the initial PID namespace sees it.
    pub pid: u32,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub at_ns: u64,
}
