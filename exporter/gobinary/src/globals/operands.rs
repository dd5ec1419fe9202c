//! What data a function's code refers to: operands relative to the program counter. Works on bytes alone.

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, OpAccess};

use crate::elf::Arch;

/// How an instruction uses an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Access {
    /// Takes it, for whatever follows.
    Address,
    /// Reads so many bytes.
    Read(u8),
    /// Writes so many bytes.
    Write(u8),
    /// Reads and writes so many bytes.
    Modify(u8),
}

/// One use of one address, in the order of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) target: u64,
    pub(crate) access: Access,
}

impl Access {
    /// `a`, `r8`, `w4`, `x8`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let width = || text.get(1..)?.parse().ok();
        Some(match text.as_bytes().first()? {
            b'a' if text.len() == 1 => Self::Address,
            b'r' => Self::Read(width()?),
            b'w' => Self::Write(width()?),
            b'x' => Self::Modify(width()?),
            _ => return None,
        })
    }
}

impl std::fmt::Display for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address => f.write_str("a"),
            Self::Read(width) => write!(f, "r{width}"),
            Self::Write(width) => write!(f, "w{width}"),
            Self::Modify(width) => write!(f, "x{width}"),
        }
    }
}

/// Every use of an address relative to the program counter in the code of a function at `start`.
pub(crate) fn references(arch: Arch, code: &[u8], start: u64) -> Vec<Reference> {
    match arch {
        Arch::Amd64 => amd64(code, start),
        Arch::Arm64 => arm64(code, start),
    }
}

fn amd64(code: &[u8], start: u64) -> Vec<Reference> {
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let mut info = InstructionInfoFactory::new();
    let mut found = Vec::new();
    while decoder.can_decode() {
        let insn = decoder.decode();
        if !insn.is_ip_rel_memory_operand() {
            continue;
        }
        let width = u8::try_from(insn.memory_size().size()).unwrap_or(0);
        let access = match insn.mnemonic() {
            Mnemonic::Lea => Access::Address,
            // Through the global offset table, to code.
            Mnemonic::Call | Mnemonic::Jmp | Mnemonic::Nop => continue,
            _ => match info.info(&insn).used_memory().first().map(iced_x86::UsedMemory::access) {
                Some(OpAccess::Read | OpAccess::CondRead) => Access::Read(width),
                Some(OpAccess::Write | OpAccess::CondWrite) => Access::Write(width),
                Some(OpAccess::ReadWrite | OpAccess::ReadCondWrite) => Access::Modify(width),
                _ => continue,
            },
        };
        found.push(Reference { target: insn.ip_rel_memory_address(), access });
    }
    found
}

/// `adrp` with what adds to it, loads from it or stores to it. Addresses in registers are forgotten at calls and jumps.
fn arm64(code: &[u8], start: u64) -> Vec<Reference> {
    let mut known: [Option<u64>; 32] = [None; 32];
    let mut found = Vec::new();
    for (index, word) in code.as_chunks::<4>().0.iter().enumerate() {
        let insn = u32::from_le_bytes(*word);
        let pc = start.wrapping_add(index as u64 * 4);
        let (rd, rn) = ((insn & 31) as usize, (insn >> 5 & 31) as usize);
        let base = if rn == 31 { None } else { known.get(rn).copied().flatten() };
        let mut set = |register: usize, value| {
            if let Some(slot) = known.get_mut(register) {
                *slot = value;
            }
        };
        if insn & 0x9f00_0000 == 0x9000_0000 {
            // adrp: 21 bits of pages, the low two apart.
            let pages = (insn >> 5 & 0x7_ffff) << 2 | insn >> 29 & 3;
            let pages = i64::from((pages << 11).cast_signed() >> 11);
            set(rd, Some((pc & !0xfff).wrapping_add_signed(pages << 12)));
        } else if insn & 0xff80_0000 == 0x9100_0000 {
            // add, 64 bits, immediate.
            let immediate = u64::from(insn >> 10 & 0xfff) << if insn >> 22 & 1 == 1 { 12 } else { 0 };
            let target = base.map(|base| base.wrapping_add(immediate));
            if let Some(target) = target {
                found.push(Reference { target, access: Access::Address });
            }
            set(rd, target);
        } else if insn & 0x3f00_0000 == 0x3900_0000 || insn & 0x3f00_0000 == 0x3d00_0000 {
            // ldr, str with an unsigned offset; of the vector registers those of 16 bytes too.
            let vector = insn >> 26 & 1 == 1;
            let operation = insn >> 22 & 3;
            let scale = if vector && operation >> 1 == 1 { 4 } else { insn >> 30 };
            let load = if vector { operation & 1 == 1 } else { operation != 0 };
            if let Some(base) = base {
                let target = base.wrapping_add(u64::from(insn >> 10 & 0xfff) << scale);
                let width = 1 << scale;
                found.push(Reference { target, access: if load { Access::Read(width) } else { Access::Write(width) } });
            }
            if load && !vector {
                set(rd, None);
            }
        } else if insn & 0x7c00_0000 == 0x1400_0000 || insn & 0xfe00_0000 == 0xd600_0000 {
            // b, bl; br, blr, ret.
            known = [None; 32];
        } else {
            set(rd, None);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amd64_operands() {
        // lea 0x10(%rip),%rax; mov 0x20(%rip),%ecx; lock xadd %rdx,0x8(%rip); cmpl $0,4(%rip); movups %xmm15,(%rip)
        let code = [
            &[0x48, 0x8d, 0x05, 0x10, 0, 0, 0][..],
            &[0x8b, 0x0d, 0x20, 0, 0, 0],
            &[0xf0, 0x48, 0x0f, 0xc1, 0x15, 8, 0, 0, 0],
            &[0x83, 0x3d, 4, 0, 0, 0, 0],
            &[0x44, 0x0f, 0x11, 0x3d, 0, 0, 0, 0],
        ]
        .concat();
        let found: Vec<_> =
            references(Arch::Amd64, &code, 0x1000).iter().map(|r| format!("{:x}{}", r.target, r.access)).collect();
        assert_eq!(found, ["1017a", "102dr4", "101ex8", "1021r4", "1025w16"]);
    }

    #[test]
    fn arm64_operands() {
        let words = [
            0xb000_0000u32, // adrp x0, +1 page
            0x9104_0001,    // add x1, x0, #0x100
            0xf940_0422,    // ldr x2, [x1, #8]
            0xb900_0c03,    // str w3, [x0, #12]
            0xf940_0000,    // ldr x0, [x0]
            0xf940_0000,    // ldr x0, [x0]: of what was loaded, not known
            0x9400_0000,    // bl
            0xf940_0422,    // ldr x2, [x1, #8]: forgotten
        ];
        let code: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let found: Vec<_> =
            references(Arch::Arm64, &code, 0x1004).iter().map(|r| format!("{:x}{}", r.target, r.access)).collect();
        assert_eq!(found, ["2100a", "2108r8", "200cw4", "2000r8"]);
    }

    #[test]
    fn accesses_are_written_as_they_are_read() {
        for access in [Access::Address, Access::Read(8), Access::Write(16), Access::Modify(4)] {
            assert_eq!(Access::parse(&access.to_string()), Some(access));
        }
        for nonsense in ["", "b", "r", "r999", "a4", "é"] {
            assert_eq!(Access::parse(nonsense), None, "{nonsense}");
        }
    }
}
