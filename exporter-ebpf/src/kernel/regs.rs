//! The registers at a probe, by Go's ABIInternal (cmd/compile/abi-internal.md): integer argument words in order, and the
//! goroutine. Reads are plain loads from the context; the verifier checks their offsets.

use aya_ebpf::{bindings::bpf_user_pt_regs_t, programs::ProbeContext};
use exporter_ebpf::router::CLOSURE;

#[cfg(bpf_target_arch = "x86_64")]
mod layout {
    use super::bpf_user_pt_regs_t as Regs;

    /// The first integer argument words: RAX, RBX, RCX, RDI.
    #[inline(always)]
    pub(crate) fn args(regs: &Regs) -> [u64; 4] {
        [regs.rax, regs.rbx, regs.rcx, regs.rdi]
    }

    /// Integer argument words beyond, up to the seventh: RSI, R8, R9; and the closure's context: RDX.
    #[inline(always)]
    pub(crate) fn further(regs: &Regs) -> [u64; 4] {
        [regs.rsi, regs.r8, regs.r9, regs.rdx]
    }

    /// The current g: R14.
    #[inline(always)]
    pub(crate) fn g(regs: &Regs) -> u64 {
        regs.r14
    }

    /// Where the program is, and its frame pointer: RIP, RBP.
    #[inline(always)]
    pub(crate) fn place(regs: &Regs) -> (u64, u64) {
        (regs.rip, regs.rbp)
    }

    /// The stack pointer at the beginning of a function, before it has made its frame, as its caller has it: the return address was
    /// pushed.
    #[inline(always)]
    pub(crate) fn callers_sp(regs: &Regs) -> u64 {
        regs.rsp.wrapping_add(8)
    }

    /// The stack pointer.
    #[inline(always)]
    pub(crate) fn sp(regs: &Regs) -> u64 {
        regs.rsp
    }

    /// The return address of a function that has not made its frame: what RSP points to.
    #[inline(always)]
    pub(crate) fn caller(regs: &Regs) -> u64 {
        crate::kernel::memory::read(regs.rsp, 0).unwrap_or(0)
    }

    /// Whether `jbe` jumps: CF or ZF.
    #[inline(always)]
    pub(crate) fn lower_or_same(regs: &Regs) -> bool {
        regs.eflags & 0x41 != 0
    }
}

#[cfg(bpf_target_arch = "aarch64")]
mod layout {
    use super::bpf_user_pt_regs_t as Regs;

    /// The first integer argument words: R0 to R3.
    #[inline(always)]
    pub(crate) fn args(regs: &Regs) -> [u64; 4] {
        [regs.regs[0], regs.regs[1], regs.regs[2], regs.regs[3]]
    }

    /// Integer argument words beyond, up to the seventh: R4, R5, R6; and the closure's context: R26.
    #[inline(always)]
    pub(crate) fn further(regs: &Regs) -> [u64; 4] {
        [regs.regs[4], regs.regs[5], regs.regs[6], regs.regs[26]]
    }

    /// The current g: R28.
    #[inline(always)]
    pub(crate) fn g(regs: &Regs) -> u64 {
        regs.regs[28]
    }

    /// Where the program is, and its frame pointer: PC, R29.
    #[inline(always)]
    pub(crate) fn place(regs: &Regs) -> (u64, u64) {
        (regs.pc, regs.regs[29])
    }

    /// The stack pointer at the beginning of a function, before it has made its frame, as its caller has it.
    #[inline(always)]
    pub(crate) fn callers_sp(regs: &Regs) -> u64 {
        regs.sp
    }

    /// The stack pointer.
    #[inline(always)]
    pub(crate) fn sp(regs: &Regs) -> u64 {
        regs.sp
    }

    /// The return address of a function that has not made its frame: R30.
    #[inline(always)]
    pub(crate) fn caller(regs: &Regs) -> u64 {
        regs.regs[30]
    }

    /// Whether `b.ls` branches: not C, or Z.
    #[inline(always)]
    pub(crate) fn lower_or_same(regs: &Regs) -> bool {
        regs.pstate & (3 << 29) != 1 << 29
    }
}

/// The registers of a probe hit.
pub(crate) struct Regs<'a>(&'a bpf_user_pt_regs_t);

impl<'a> Regs<'a> {
    #[inline(always)]
    pub(crate) fn of(ctx: &'a ProbeContext) -> Self {
        // SAFETY: a uprobe's context is the pt_regs of the interrupted thread, alive for the program's run.
        Self(unsafe { &*ctx.regs.cast::<bpf_user_pt_regs_t>() })
    }

    /// Whether the stack check at whose branch the probe is sends the call away, see [`exporter_ebpf::target::at_check`].
    #[inline(always)]
    pub(crate) fn lower_or_same(&self) -> bool {
        layout::lower_or_same(self.0)
    }

    /// The `n`th integer argument word, from 0.
    #[inline(always)]
    pub(crate) fn arg(&self, n: usize) -> u64 {
        layout::args(self.0)[n]
    }

    /// An integer argument word by its number in what is told of a program, or a closure's context; 0 for any other. Without a branch: the
    /// compiler would choose between addresses in the context, which the verifier does not let through.
    #[inline(always)]
    pub(crate) fn named(&self, name: u8) -> u64 {
        let [a, b, c, d] = layout::args(self.0);
        let [e, f, g, closure] = layout::further(self.0);
        let mut word = 0;
        for (number, value) in [(0, a), (1, b), (2, c), (3, d), (4, e), (5, f), (6, g), (CLOSURE, closure)] {
            let is_it = u64::from(name ^ number).wrapping_sub(1) >> 63;
            word |= core::hint::black_box(value) & is_it.wrapping_neg();
        }
        word
    }

    /// The address of the current `runtime.g`.
    #[inline(always)]
    pub(crate) fn g(&self) -> u64 {
        layout::g(self.0)
    }

    /// The stack pointer of the caller of a function at whose beginning the probe is, before that has made its frame.
    #[inline(always)]
    pub(crate) fn callers_sp(&self) -> u64 {
        layout::callers_sp(self.0)
    }

    /// The stack pointer.
    #[inline(always)]
    pub(crate) fn sp(&self) -> u64 {
        layout::sp(self.0)
    }

    /// Where the program is, and its frame pointer.
    #[inline(always)]
    pub(crate) fn place(&self) -> (u64, u64) {
        layout::place(self.0)
    }

    /// The return address of the function at whose beginning the probe is, before that has made its frame; 0 if it cannot be
    /// read.
    #[inline(always)]
    pub(crate) fn caller(&self) -> u64 {
        layout::caller(self.0)
    }
}
