//! Processes that begin and end: tells user space, which decides what they are. Knows nothing of Go.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};
use exporter_ebpf::{event, target::target_slot};

use super::maps::{TARGET_SLOTS, TARGETS, tell};

/// A process called `execve`; its new image is in place.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn process_exec(_ctx: RawTracePointContext) -> u32 {
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    // What the process was told to be no longer holds: until user space has looked at the new image, nothing is read from it.
    let _ = TARGETS.remove(&process);
    // After the map: user space writes the slot, then looks whether the map still has the process (kernel/targets.rs there).
    if let Some(slot) = TARGET_SLOTS.get_ptr_mut(target_slot(process)) {
        // SAFETY: from a look-up just above; a word is written whole.
        unsafe {
            if (*slot).pid == process {
                (*slot).pid = 0;
            }
        }
    }
    tell(event::EXEC, process);
    0
}

/// A thread ends; told only for the main thread of a measured process.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn process_exit(_ctx: RawTracePointContext) -> u32 {
    let id = bpf_get_current_pid_tgid();
    let (process, thread) = ((id >> 32) as u32, id as u32);
    if process == thread && TARGETS.get_ptr(&process).is_some() {
        tell(event::EXIT, process);
    }
    0
}
