//! Numbers of the ELF format: elf(5), `/usr/include/elf.h`.

pub(super) const ET_EXEC: u16 = 2;
pub(super) const ET_DYN: u16 = 3;
pub(super) const EM_X86_64: u16 = 62;
pub(super) const EM_AARCH64: u16 = 183;
pub(super) const PT_LOAD: u32 = 1;
pub(super) const PT_DYNAMIC: u32 = 2;
pub(super) const PT_NOTE: u32 = 4;
pub(super) const PF_X: u32 = 1;
pub(super) const PF_W: u32 = 2;
pub(crate) const SHT_NOBITS: u32 = 8;
pub(crate) const SHT_SYMTAB: u32 = 2;
pub(crate) const SHF_COMPRESSED: u64 = 0x800;
pub(super) const SHDR_SIZE: u64 = 64;
pub(super) const PHDR_SIZE: usize = 56;
