//! The programs, by what they watch.

mod block;
mod http;
mod maps;
mod memory;
mod process;
mod regs;
mod sched;
mod series;
mod stw;
mod watch;

/// Each program exists twice: for a `uprobe_multi` link and for perf events. The kernel takes only the matching kind.
macro_rules! programs {
    ($($(#[$doc:meta])* $single:ident, $multi:ident => $body:ident($($argument:expr),*);)*) => {$(
        $(#[$doc])*
        #[uprobe]
        fn $single(ctx: ProbeContext) -> u32 {
            $body(&ctx $(, $argument)*);
            0
        }
        $(#[$doc])*
        #[uprobe(multi)]
        fn $multi(ctx: ProbeContext) -> u32 {
            $body(&ctx $(, $argument)*);
            0
        }
    )*};
}
use programs;
