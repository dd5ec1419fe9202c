//! Which field a function reads first. Works on bytes alone.

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};

use crate::elf::Arch;

/// The offset of the first read of 4 bytes through a register other than the stack pointer.
pub(crate) fn first_of_4_bytes(arch: Arch, code: &[u8]) -> Option<u32> {
    match arch {
        Arch::Amd64 => amd64(code),
        Arch::Arm64 => arm64(code),
    }
}

fn amd64(code: &[u8]) -> Option<u32> {
    Decoder::new(64, code, DecoderOptions::NONE).into_iter().take_while(|insn| !insn.is_invalid()).find_map(|insn| {
        let reads = insn.op_count() == 2 && insn.op1_kind() == OpKind::Memory && insn.memory_size().size() == 4;
        let moves = matches!(insn.mnemonic(), Mnemonic::Mov | Mnemonic::Movsxd);
        let by_base = insn.memory_index() == Register::None && insn.memory_base().is_gpr64();
        let of_stack = insn.memory_base() == Register::RSP;
        (reads && moves && by_base && !of_stack).then(|| u32::try_from(insn.memory_displacement64()).ok()).flatten()
    })
}

/// `ldr wt, [xn, #i]` or `ldrsw xt, [xn, #i]`.
fn arm64(code: &[u8]) -> Option<u32> {
    let words = code.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    let is_read = |insn: &u32| matches!(insn & 0xffc0_0000, 0xb940_0000 | 0xb980_0000) && insn >> 5 & 31 != 31;
    words.into_iter().find(is_read).map(|insn| (insn >> 10 & 0xfff) << 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `internal/status.(*Status).Err` as Go 1.26 compiles it, up to the comparison.
    const ERR: &[u8] = &[
        0x49, 0x3b, 0x66, 0x10, 0x76, 0x6d, 0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0x48, 0x85, 0xc0, 0x74,
        0x0f, 0x48, 0x8b, 0x08, 0x48, 0x85, 0xc9, 0x74, 0x07, 0x8b, 0x49, 0x28, 0x66, 0x90, 0xeb, 0x02, 0x31, 0xc9,
        0x85, 0xc9,
    ];

    #[test]
    fn amd64_reads() {
        assert_eq!(first_of_4_bytes(Arch::Amd64, ERR), Some(40));
        // mov (%rcx),%ecx, as with an older module.
        assert_eq!(first_of_4_bytes(Arch::Amd64, &[0x48, 0x8b, 0x08, 0x8b, 0x09]), Some(0));
        // mov 8(%rsp),%eax; mov 8(%rcx,%rax,1),%eax; mov 8(%rip),%eax
        let others = [0x8b, 0x44, 0x24, 8, 0x8b, 0x44, 0x01, 8, 0x8b, 0x05, 8, 0, 0, 0];
        assert_eq!(first_of_4_bytes(Arch::Amd64, &others), None);
        assert_eq!(first_of_4_bytes(Arch::Amd64, &[]), None);
    }

    #[test]
    fn arm64_reads() {
        let code = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
        // ldr x1, [x0]; ldrsw x1, [x1, #40]
        assert_eq!(first_of_4_bytes(Arch::Arm64, &code(&[0xf940_0001, 0xb980_2821])), Some(40));
        // ldr w1, [x1]
        assert_eq!(first_of_4_bytes(Arch::Arm64, &code(&[0xb940_0021])), Some(0));
        // ldr w1, [sp, #8]
        assert_eq!(first_of_4_bytes(Arch::Arm64, &code(&[0xb940_0be1])), None);
    }
}
