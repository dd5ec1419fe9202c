//! `.gopclntab`: the function table that every Go program carries, stripped or not. Finds it, finds where text starts,
//! and picks wanted functions out of it in chunks. Knows nothing of symbol tables or layouts.
//!
//! Sources: Go's debug/gosym/pclntab.go, runtime/symtab.go, cmd/link/internal/ld/pcln.go, 1.17 to 1.27.

mod find;
mod functions;
mod lines;

use crate::elf::{Arch, Elf};
use crate::error::Error;
use crate::source::{Le, Source, read_up_to};

pub use lines::{Frame, frames_at};

pub(crate) use find::{Located, locate, moduledata, text_start};
pub(crate) use functions::{matching, wanted};

/// The layout generations, by magic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Magic {
    /// 0xfffffffb. No Go with a register ABI writes it.
    Go12,
    /// 0xfffffffa, Go 1.16 and 1.17: pointers in functab.
    Go116,
    /// 0xfffffff0, Go 1.18 and 1.19: 32-bit offsets in functab.
    Go118,
    /// 0xfffffff1, Go 1.20 on.
    Go120,
}

impl Magic {
    pub(crate) fn from_u32(magic: u32) -> Option<Self> {
        match magic {
            0xffff_fffb => Some(Self::Go12),
            0xffff_fffa => Some(Self::Go116),
            0xffff_fff0 => Some(Self::Go118),
            0xffff_fff1 => Some(Self::Go120),
            _ => None,
        }
    }

    /// The first and last minor release of Go 1 that writes it.
    pub(crate) fn minors(self) -> (u16, u16) {
        match self {
            Self::Go12 => (2, 15),
            Self::Go116 => (16, 17),
            Self::Go118 => (18, 19),
            Self::Go120 => (20, u16::MAX),
        }
    }
}

/// The table's header, all offsets relative to the table's start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) magic: Magic,
    pub(crate) nfunc: u64,
    pub(crate) funcname: u64,
    pub(crate) cu: u64,
    pub(crate) functab: u64,
}

pub(crate) const HEADER_SIZE: usize = 72;
/// Five million functions: an order of magnitude over the largest Go programs known.
const MAX_FUNCS: u64 = 5_000_000;

impl Header {
    /// Parses and checks a header; `None` when these bytes are not one.
    pub(crate) fn parse(bytes: &[u8], arch: Arch) -> Option<Self> {
        let magic = Magic::from_u32(bytes.u32_at(0)?)?;
        let min_lc = match arch {
            Arch::Amd64 => 1,
            Arch::Arm64 => 4,
        };
        if bytes.get(4..8)? != [0, 0, min_lc, 8] {
            return None;
        }
        let word = |index: usize| bytes.u64_at(8 + 8 * index);
        let nfunc = word(0)?;
        let header = match magic {
            Magic::Go12 => return None,
            Magic::Go116 => {
                // nfunc, nfiles, funcname, cu, filetab, pctab, pcln
                Self { magic, nfunc, funcname: word(2)?, cu: word(3)?, functab: word(6)? }.ascending([
                    word(3)?,
                    word(4)?,
                    word(5)?,
                ])?
            }
            Magic::Go118 | Magic::Go120 => {
                // nfunc, nfiles, textStart, funcname, cu, filetab, pctab, pcln
                Self { magic, nfunc, funcname: word(3)?, cu: word(4)?, functab: word(7)? }.ascending([
                    word(4)?,
                    word(5)?,
                    word(6)?,
                ])?
            }
        };
        let plausible = (1..=MAX_FUNCS).contains(&nfunc) && (0x40..=0x80).contains(&header.funcname);
        plausible.then_some(header)
    }

    fn ascending(self, between: [u64; 3]) -> Option<Self> {
        let mut last = self.funcname;
        for offset in between.into_iter().chain([self.functab]) {
            if offset < last {
                return None;
            }
            last = offset;
        }
        Some(self)
    }

    /// Go 1.26 dropped eight words of padding behind the header, and textStart with them.
    pub(crate) fn is_126_or_newer(&self) -> bool {
        self.magic == Magic::Go120 && self.funcname == 0x48
    }
}

/// What stands where a section named like a function table says it is, when that is no known header.
pub(crate) fn foreign_magic<S: Source>(elf: &Elf<S>) -> Result<Option<u32>, Error> {
    for name in find::SECTIONS {
        if let Some(section) = elf.section(name) {
            return Ok(read_up_to(&elf.src, section.offset, 4)?.u32_at(0));
        }
    }
    Ok(None)
}
