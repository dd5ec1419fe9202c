//! The registers at a probe, by Go's ABIInternal (cmd/compile/abi-internal.md): integer argument words in order, and the
//! goroutine. Reads are plain loads from the context; the verifier checks their offsets.

use aya_ebpf::{bindings::bpf_user_pt_regs_t, programs::ProbeContext};

#[cfg(bpf_target_arch = "x86_64")]
mod layout {
    use super::bpf_user_pt_regs_t as Regs;

    /// The first integer argument words: RAX, RBX, RCX, RDI.
    #[inline(always)]
    pub(crate) fn args(regs: &Regs) -> [u64; 4] {
        [regs.rax, regs.rbx, regs.rcx, regs.rdi]
    }

    /// The current g: R14.
    #[inline(always)]
    pub(crate) fn g(regs: &Regs) -> u64 {
        regs.r14
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

    /// The current g: R28.
    #[inline(always)]
    pub(crate) fn g(regs: &Regs) -> u64 {
        regs.regs[28]
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

    /// The address of the current `runtime.g`.
    #[inline(always)]
    pub(crate) fn g(&self) -> u64 {
        layout::g(self.0)
    }
}
