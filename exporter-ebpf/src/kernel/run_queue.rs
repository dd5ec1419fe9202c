//! Threads that wait for a CPU, by the scheduler's tracepoints. They fire for every thread of the machine: what is not measured
//! leaves after a look-up in an array and one in a small hash map. Threads are told apart by the address of their `task_struct`; nothing in it
//! is read, so that no kernel's layout matters.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use exporter_ebpf::{feature::Feature, loss::Reason, share::Table, wait::Task};

use super::{
    maps::{BPF_NOEXIST, add, lost},
    series::{RUN_QUEUE, observe},
    share::{self, give_back},
    waits::{TASKS, waiting},
};

/// `sched_wakeup(p)` and `sched_wakeup_new(p)`: the thread can run from now on.
#[raw_tracepoint(tracepoint = "sched_wakeup")]
fn sched_wakeup(ctx: RawTracePointContext) -> u32 {
    if let Some(task) = TASKS.get_ptr_mut(&ctx.arg::<u64>(0)) {
        // SAFETY: from a map look-up; a thread is woken, runs and sleeps in turns. A wake-up of one that has not slept yet
        // changes nothing for one that is counted as runnable already.
        unsafe {
            if (*task).runnable_ns == 0 {
                (*task).runnable_ns = bpf_ktime_get_ns();
            }
        }
    }
    0
}

/// `sched_switch(preempt, prev, next, prev_state)`; the state is there from Linux 5.18 on.
#[raw_tracepoint(tracepoint = "sched_switch")]
fn sched_switch(ctx: RawTracePointContext) -> u32 {
    let runnable = ctx.arg::<u64>(0) as u8 != 0 || ctx.arg::<u64>(3) as u32 == 0;
    switch(&ctx, runnable)
}

/// The same before Linux 5.18: a thread that lost its CPU on the way back to user space cannot be told from one that sleeps.
#[raw_tracepoint(tracepoint = "sched_switch")]
fn sched_switch_old(ctx: RawTracePointContext) -> u32 {
    let runnable = ctx.arg::<u64>(0) as u8 != 0;
    switch(&ctx, runnable)
}

/// `sched_process_free(p)`: the address will be another thread's.
#[raw_tracepoint(tracepoint = "sched_process_free")]
fn sched_free(ctx: RawTracePointContext) -> u32 {
    forget(ctx.arg::<u64>(0));
    0
}

#[inline(always)]
fn forget(address: u64) {
    // SAFETY: copied before the entry is removed.
    if let Some(task) = unsafe { TASKS.get(&address) }.copied()
        && TASKS.remove(&address).is_ok()
    {
        give_back(Table::Tasks, task.target);
    }
}

#[inline(always)]
fn switch(ctx: &RawTracePointContext, prev_runnable: bool) -> u32 {
    if let Some(next) = TASKS.get_ptr_mut(&ctx.arg::<u64>(2)) {
        // SAFETY: from a map look-up; the run queue's lock is held.
        let task = unsafe { *next };
        if task.runnable_ns != 0 {
            // SAFETY: as above; the clock has no preconditions.
            let now = unsafe {
                (*next).runnable_ns = 0;
                bpf_ktime_get_ns()
            };
            observe::<RUN_QUEUE>(task.target, 0, now.saturating_sub(task.runnable_ns));
        }
    }
    // The current thread is still the one that leaves.
    let Some((target, state)) = waiting(Feature::RunQueue) else { return 0 };
    // SAFETY: from a map look-up.
    unsafe { add(&raw mut (*state).switches, 1) };
    let runnable_ns = if prev_runnable {
        // SAFETY: as above.
        unsafe {
            add(&raw mut (*state).involuntary, 1);
            bpf_ktime_get_ns()
        }
    } else {
        0
    };
    let task = Task { runnable_ns, target: target.id, reserved: 0 };
    let address = ctx.arg::<u64>(1);
    if let Some(entry) = TASKS.get_ptr_mut(&address) {
        // SAFETY: from a map look-up; the run queue's lock is held.
        let entry = unsafe { &mut *entry };
        if entry.target == task.target {
            *entry = task;
            return 0;
        }
        // The process was another target before its execve.
        forget(address);
    }
    if !share::insert(Table::Tasks, task.target, || TASKS.insert(&address, &task, BPF_NOEXIST).is_ok()) {
        lost(task.target, Reason::TasksFull);
    }
    0
}
