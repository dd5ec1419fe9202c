//! What to say of files that are not inspected.

use crate::buildinfo::BuildInfo;
use crate::elf::{Arch, Elf};
use crate::error::Error;
use crate::pclntab::{self, Located};
use crate::source::{Source, read_up_to};

/// What to say of a file without a trace of Go.
pub(super) fn no_go<S: Source>(elf: &Elf<S>) -> Result<Error, Error> {
    // UPX puts its magic right behind the program headers, and drops the section headers.
    let head = read_up_to(&elf.src, 0, 4096)?;
    let tail = read_up_to(&elf.src, elf.src.len().saturating_sub(512), 512)?;
    let upx = |bytes: &[u8]| memchr::memmem::find(bytes, b"UPX!").is_some();
    if elf.sections.is_empty() && (upx(&head) || upx(&tail)) {
        return Ok(Error::PackedWithUpx);
    }
    Ok(match pclntab::foreign_magic(elf)? {
        Some(magic) => Error::UnknownPclntab(magic),
        None => Error::NotGo,
    })
}

pub(super) fn refuse_old(arch: Arch, info: &BuildInfo, table: Option<&Located>) -> Result<(), Error> {
    let (minor, needed) = match arch {
        Arch::Amd64 => (17, "1.17"),
        Arch::Arm64 => (18, "1.18"),
    };
    let version = &info.go_version;
    let by_version = version.is_known() && !version.at_least(1, minor);
    let by_table = !version.is_known() && table.is_some_and(|t| t.header.magic.minors().1 < minor);
    if by_version || by_table {
        return Err(Error::TooOld { found: version.clone(), needed });
    }
    if version.is_without_registers() { Err(Error::NoRegisters(version.clone())) } else { Ok(()) }
}
