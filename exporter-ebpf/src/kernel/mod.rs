//! The programs, by what they watch.

mod block;
mod http;
mod maps;
mod memory;
mod process;
mod regs;
mod sched;
mod series;
mod stack;
mod stw;
mod watch;

/// Each program exists twice: for a `uprobe_multi` link and for perf events. The kernel takes only the matching kind. Programs
/// on functions are made by this alone, so that none is without [`on_the_threads_stack`]; `cargo xtask check objects` holds the
/// built objects to it.
macro_rules! programs {
    ($($(#[$doc:meta])* $single:ident, $multi:ident => $body:ident($($argument:expr),*);)*) => {$(
        $(#[$doc])*
        #[uprobe]
        fn $single(ctx: ProbeContext) -> u32 {
            $crate::kernel::on_the_threads_stack();
            $body(&ctx $(, $argument)*);
            0
        }
        $(#[$doc])*
        #[uprobe(multi)]
        fn $multi(ctx: ProbeContext) -> u32 {
            $crate::kernel::on_the_threads_stack();
            $body(&ctx $(, $argument)*);
            0
        }
    )*};
}
use programs;

/// Keeps the program, and what it calls, on the stack of its thread.
///
/// From Linux 6.13 on (arm64: 6.17) the verifier gives programs of this type a stack per CPU, each function whose frame is 64
/// bytes or more its own (kernel/bpf/verifier.c: bpf_enable_priv_stack). A program on a function can be preempted, and another
/// thread that then runs it on the same CPU writes over its variables, pointers into maps among them. A tail call anywhere in a
/// program turns these stacks off for the whole of it (verifier.c: check_max_stack_depth, has_tail_call). The verifier looks for
/// one before it follows any branch, and drops this one as dead code, since the branch is always taken: no map, no argument and
/// no jump is needed, and nothing of it runs.
#[inline(always)]
fn on_the_threads_stack() {
    // SAFETY: sets R0, and jumps over the call.
    unsafe {
        core::arch::asm!("r0 = 0", "if r0 == 0 goto +1", "call 12", out("r0") _, options(nomem, nostack));
    }
}
