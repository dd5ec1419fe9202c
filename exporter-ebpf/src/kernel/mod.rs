//! The programs, by what they watch.

mod below;
mod blocking;
mod grpc;
mod grpc_server;
mod hijack;
mod hit;
mod http;
mod http_client;
mod joined;
mod maps;
mod memory;
mod mux;
mod panic;
mod process;
mod regs;
mod request;
mod route;
mod routed;
mod router;
mod run_queue;
mod series;
mod share;
mod span;
mod stack;
mod stw;
mod texts;
mod waits;

use aya_ebpf::{macros::uprobe, programs::ProbeContext};

/// The programs on functions, one for each line of the list of probes. Each exists twice: for a `uprobe_multi` link and for perf
/// events, since the kernel takes only the matching kind. And each calls [`on_the_threads_stack`], which `cargo xtask check
/// objects` looks for.
macro_rules! programs {
    ($($(#[$doc:meta])* $probe:ident: $single:ident, $multi:ident, $module:ident, $part:ident, $role:ident, $at:ident;)*) => {$(
        $(#[$doc])*
        #[uprobe]
        fn $single(ctx: ProbeContext) -> u32 {
            on_the_threads_stack();
            $module::$single(&ctx);
            0
        }
        $(#[$doc])*
        #[uprobe(multi)]
        fn $multi(ctx: ProbeContext) -> u32 {
            on_the_threads_stack();
            $module::$single(&ctx);
            0
        }
    )*};
}
exporter_ebpf::probes!(programs);

/// Keeps the program, and what it calls, on the stack of its thread.
///
/// From Linux 6.13 on (arm64: 6.17) the verifier gives each function of such a program whose frame is 64 bytes or more a stack
/// per CPU (kernel/bpf/verifier.c: bpf_enable_priv_stack). A thread can be preempted in the program, and the thread that then
/// runs the same program on the same CPU overwrites its variables, among them pointers into maps. A program with a tail call
/// gets no such stacks at all (check_max_stack_depth: has_tail_call). The verifier looks for tail calls before it follows any
/// branch, and drops this one as dead code because the branch is always taken: the call needs no map and no arguments, and
/// only `r0 = 0` runs.
#[inline(always)]
fn on_the_threads_stack() {
    // Clippy looks at this code as one for the machine that it runs on.
    #[cfg(target_arch = "bpf")]
    // SAFETY: sets R0, and jumps over the call.
    unsafe {
        core::arch::asm!("r0 = 0", "if r0 == 0 goto +1", "call 12", out("r0") _, options(nomem, nostack));
    }
}
