//! What a uprobe costs by the instruction under it, by architecture and kernel version. Knows nothing of Go.
//!
//! A kernel that emulates the instruction takes one trap; one that must single-step it out of line takes two, which is
//! four to eight times as much (measured on 6.18: `push` 0.45 us, `cmp` or `ret` 3.8 us a hit).

use serde::Serialize;

use crate::elf::Arch;

/// What the kernel does at a hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// No trap: the 5-byte nop was replaced by a call (x86-64, Linux 6.18 on).
    Nop5,
    /// One trap.
    Emulated,
    /// Two traps: the displaced instruction is executed in a slot of its own.
    SingleStepped,
}

impl Cost {
    /// As reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nop5 => "nop5",
            Self::Emulated => "emulated",
            Self::SingleStepped => "single_stepped",
        }
    }
}

/// What kernels distinguish about an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Instruction {
    /// x86 `push %reg`.
    Push,
    /// The one-byte nop of x86 or the nop of arm64.
    Nop,
    /// The 5-byte nop `0f 1f 44 00 00`, not crossing a page in the program.
    Nop5,
    /// Other multi-byte nops of x86.
    NopLong,
    /// x86 `call rel32`, `jmp rel`, `jcc rel`; arm64 `b`, `bl`, `b.cond`, `cbz`, `tbz`.
    Branch,
    /// arm64 `ret`, `br`, `blr`.
    RegisterBranch,
    /// arm64 `adr`, `adrp`, literal loads.
    PcRelative,
    /// arm64 `stp x29, x30, [sp, #-n]!`.
    PushPair,
    /// Anything else.
    Other,
}

/// What a kernel does better than the oldest supported one.
#[expect(clippy::struct_excessive_bools, reason = "independent features, each with its own kernel version")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct KernelFeatures {
    /// The architecture of the kernel.
    pub arch: Arch,
    /// Emulates `push %reg`. x86, Linux 5.0: arch/x86/kernel/uprobes.c, push_setup_xol_ops.
    pub push: bool,
    /// Emulates the one-byte nop. x86: from the first uprobes on. arm64: Linux 6.13, arch/arm64/kernel/probes/decode-insn.c,
    /// simulate_nop.
    pub nop: bool,
    /// Emulates nops of any length. x86, Linux 6.18, arch/x86/kernel/uprobes.c, branch_setup_xol_ops.
    pub long_nop: bool,
    /// Replaces the 5-byte nop by a call. x86-64, Linux 6.18: arch/x86/kernel/uprobes.c, arch_uprobe_optimize.
    pub nop5_call: bool,
}

impl KernelFeatures {
    /// What a kernel of this version is known to do.
    pub fn of(arch: Arch, kernel: (u16, u16)) -> Self {
        match arch {
            Arch::Amd64 => Self {
                arch,
                push: kernel >= (5, 0),
                nop: true,
                long_nop: kernel >= (6, 18),
                nop5_call: kernel >= (6, 18),
            },
            Arch::Arm64 => Self { arch, push: false, nop: kernel >= (6, 13), long_nop: false, nop5_call: false },
        }
    }

    /// The oldest kernel that gopulse supports.
    pub fn oldest(arch: Arch) -> Self {
        Self::of(arch, (5, 10))
    }

    /// What a probe on this instruction costs.
    pub fn cost(&self, instruction: Instruction) -> Cost {
        let emulated = match (self.arch, instruction) {
            (Arch::Amd64, Instruction::Nop5) if self.nop5_call => return Cost::Nop5,
            (Arch::Amd64, Instruction::Push) => self.push,
            (Arch::Amd64, Instruction::Nop5 | Instruction::NopLong) => self.long_nop,
            (_, Instruction::Nop) => self.nop,
            // simulate-insn.c of arm64: also RET, so that ends are cheap there.
            (_, Instruction::Branch) | (Arch::Arm64, Instruction::RegisterBranch | Instruction::PcRelative) => true,
            // The simulation of the frame push was proposed in 2024 ("Simulate nop and push instruction") and left out
            // of what was merged; Go pushes with `str x30, [sp, #-n]!` in small frames anyway.
            _ => false,
        };
        if emulated { Cost::Emulated } else { Cost::SingleStepped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let old = KernelFeatures::oldest(Arch::Amd64);
        let new = KernelFeatures::of(Arch::Amd64, (6, 18));
        let arm = KernelFeatures::of(Arch::Arm64, (6, 12));
        assert_eq!(old.cost(Instruction::Push), Cost::Emulated);
        assert_eq!(old.cost(Instruction::Nop5), Cost::SingleStepped);
        assert_eq!(new.cost(Instruction::Nop5), Cost::Nop5);
        assert_eq!(new.cost(Instruction::RegisterBranch), Cost::SingleStepped);
        assert_eq!(arm.cost(Instruction::RegisterBranch), Cost::Emulated);
        assert_eq!(arm.cost(Instruction::Nop), Cost::SingleStepped);
        assert_eq!(KernelFeatures::of(Arch::Arm64, (6, 13)).cost(Instruction::Nop), Cost::Emulated);
        assert!(Cost::Nop5 < Cost::Emulated && Cost::Emulated < Cost::SingleStepped);
    }
}
