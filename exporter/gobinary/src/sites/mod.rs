//! The site chooser: at which instruction of a function a uprobe goes. Works on bytes alone; knows nothing of files.
//!
//! A probe costs what its instruction costs ([`cost`]), and must mean what it is for: a function's start is probed past
//! its stack check, because the check runs again after the stack grew, and while the argument registers are still whole;
//! or at the check's branch, where the flags tell whether it does.

pub(crate) mod amd64;
pub(crate) mod arm64;
pub(crate) mod cost;

use serde::Serialize;

use crate::elf::Arch;
use cost::{Cost, Instruction, KernelFeatures};

/// The direct calls in a function, and where they go: distances from its first byte.
pub(crate) fn calls(arch: Arch, code: &[u8]) -> Vec<(i64, Found)> {
    match arch {
        Arch::Amd64 => amd64::calls(code),
        Arch::Arm64 => arm64::calls(code),
    }
}

/// An instruction at which a uprobe can go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Site {
    /// Link-time virtual address.
    pub vaddr: u64,
    /// What uprobes are attached by: `vaddr - p_vaddr + p_offset` of the executable segment.
    pub file_offset: u64,
    /// Bytes from the start of the function.
    pub function_offset: u32,
    /// In AT&T syntax: `push %rbp`.
    pub instruction: String,
    /// What it costs on any kernel that gopulse supports; see [`Site::cost_on`].
    pub cost: Cost,
    /// What kind of instruction it is.
    pub kind: Instruction,
}

impl Site {
    /// What a probe here costs on a given kernel.
    pub fn cost_on(&self, kernel: &KernelFeatures) -> Cost {
        kernel.cost(self.kind)
    }
}

/// Why a function has no site of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// The function's bytes were not kept: it was not among the wanted ones, or is too large.
    #[error("the code of {0} was not read")]
    NoCode(String),
    /// Bytes that are no instruction.
    #[error("undecodable instruction {0:#x} bytes into the function")]
    Undecodable(u32),
    /// A stack check with no frame behind it where Go's compiler would put one.
    #[error("no frame set-up found behind the stack check")]
    NoFrame,
    /// A jump through a register that is no jump table.
    #[error("an indirect jump {0:#x} bytes into the function: its ways out cannot be listed")]
    IndirectJump(u32),
    /// A jump out of the function.
    #[error("a tail jump {0:#x} bytes into the function: it leaves without a RET")]
    TailJump(u32),
    /// Nothing returns (an endless loop, or a function that ends the goroutine).
    #[error("the function has no RET")]
    NoReturn,
    /// Not one call through a pointer whose error is looked at next, or of one function, but none or several.
    #[error("{0} calls of the wanted kind in the function, and not one")]
    NotOneCall(usize),
}

/// A site inside a function, before it has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: u32,
    pub(crate) text: String,
    pub(crate) kind: Instruction,
}

/// The start of a function past its stack check.
pub(crate) fn entry(arch: Arch, code: &[u8]) -> Result<Found, SiteError> {
    match arch {
        Arch::Amd64 => amd64::entry(code),
        Arch::Arm64 => arm64::entry(code),
    }
}

/// The branch of a function's stack check, just before its start.
pub(crate) fn check(arch: Arch, code: &[u8]) -> Option<Found> {
    match arch {
        Arch::Amd64 => amd64::check(code),
        Arch::Arm64 => arm64::check(code),
    }
}

/// The branch on the error that a call through a pointer returned, where the function makes one such call whose results are a
/// pointer and an error, and looks at the error next: each return of the callee passes it, with the results still in their registers.
pub(crate) fn after_call(arch: Arch, code: &[u8]) -> Result<Found, SiteError> {
    let mut found = match arch {
        Arch::Amd64 => amd64::after_calls(code),
        Arch::Arm64 => arm64::after_calls(code),
    };
    match (found.len(), found.pop()) {
        (1, Some(found)) => Ok(found),
        (count, _) => Err(SiteError::NotOneCall(count)),
    }
}

/// Every RET.
pub(crate) fn returns(arch: Arch, code: &[u8]) -> Result<Vec<Found>, SiteError> {
    match arch {
        Arch::Amd64 => amd64::returns(code),
        Arch::Arm64 => arm64::returns(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_branch_behind_a_call_through_a_pointer() {
        // From net/http.send of Go 1.20: call *%r10; mov %rax,0xf0(%rsp); nop; test %rbx,%rbx; jne
        let mut amd64 =
            vec![0x41, 0xff, 0xd2, 0x48, 0x89, 0x84, 0x24, 0xf0, 0, 0, 0, 0x90, 0x48, 0x85, 0xdb, 0x0f, 0x85];
        amd64.extend([0xa5, 3, 0, 0]);
        let found = after_call(Arch::Amd64, &amd64).unwrap();
        assert_eq!((found.offset, found.kind), (15, Instruction::Branch));
        assert_eq!(after_call(Arch::Amd64, &amd64.repeat(2)), Err(SiteError::NotOneCall(2)));
        let direct = [&[0xe8, 0, 0, 0, 0], &amd64[3..]].concat();
        assert_eq!(after_call(Arch::Amd64, &direct), Err(SiteError::NotOneCall(0)), "a direct call");
        let other = [&amd64[..12], &[0x48, 0x85, 0xc0], &amd64[15..]].concat();
        assert_eq!(
            after_call(Arch::Amd64, &other),
            Err(SiteError::NotOneCall(0)),
            "the pointer is looked at, not the error"
        );
        let overwritten = [&amd64[..3], &[0x31, 0xdb], &amd64[12..]].concat();
        assert_eq!(after_call(Arch::Amd64, &overwritten), Err(SiteError::NotOneCall(0)), "xor %ebx,%ebx between");
        let jumped_to = [&amd64[..], &[0xeb, (12_i8 - 23) as u8]].concat();
        assert_eq!(after_call(Arch::Amd64, &jumped_to), Err(SiteError::NotOneCall(0)), "another way leads to the test");

        // Go 1.24: blr x6; str x0,[sp,#384]; cbnz x1
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let arm64 = [0xd63f_00c0, 0xf900_c3e0, 0xb500_0a41];
        let found = after_call(Arch::Arm64, &words(&arm64)).unwrap();
        assert_eq!((found.offset, found.kind, found.text.as_str()), (8, Instruction::Branch, "cbnz x1, .+0x148"));
        for (why, other) in [
            ("the pointer is looked at", [0xd63f_00c0, 0xf900_c3e0, 0xb500_0a40]),
            ("half of the word is looked at", [0xd63f_00c0, 0xf900_c3e0, 0x3500_0a41]),
            ("a direct call", [0x9400_0010, 0xf900_c3e0, 0xb500_0a41]),
            ("mov x1, x0 between", [0xd63f_00c0, 0xaa00_03e1, 0xb500_0a41]),
        ] {
            assert_eq!(after_call(Arch::Arm64, &words(&other)), Err(SiteError::NotOneCall(0)), "{why}");
        }
        let jumped_to = [&arm64[..], &[0x17ff_ffff]].concat();
        assert_eq!(after_call(Arch::Arm64, &words(&jumped_to)), Err(SiteError::NotOneCall(0)), "b to the cbnz");
    }

    #[test]
    fn direct_calls_go_forth_and_back() {
        // nop; call +0x10; call -0x100; call *%rax
        let amd64 = [0x90, 0xe8, 0x10, 0, 0, 0, 0xe8, 0x00, 0xff, 0xff, 0xff, 0xff, 0xd0];
        let of = |arch, code: &[u8]| -> Vec<(i64, u32, Instruction)> {
            calls(arch, code).into_iter().map(|(to, found)| (to, found.offset, found.kind)).collect()
        };
        assert_eq!(of(Arch::Amd64, &amd64), [(0x16, 1, Instruction::Branch), (-0xf5, 6, Instruction::Branch)]);
        // nop; bl .+8; bl .-4; b .+8; blr x0
        let arm64: Vec<u8> = [0xd503_201f_u32, 0x9400_0002, 0x97ff_ffff, 0x1400_0002, 0xd63f_0000]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        assert_eq!(of(Arch::Arm64, &arm64), [(12, 4, Instruction::Branch), (4, 8, Instruction::Branch)]);
    }
}
