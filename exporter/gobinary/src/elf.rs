//! The part of ELF that is needed here: header, segments, sections. Knows nothing of Go.
//!
//! Sources: System V ABI (ELF-64), its amd64 and AArch64 supplements.

mod constants;
mod parts;
mod relocations;

use serde::Serialize;

use self::constants::{EM_AARCH64, EM_X86_64, ET_DYN, ET_EXEC, PHDR_SIZE, PT_DYNAMIC, PT_LOAD, PT_NOTE, SHDR_SIZE};
pub(crate) use self::constants::{SHF_COMPRESSED, SHT_NOBITS, SHT_SYMTAB};
pub(crate) use self::parts::{Section, Segment};
use crate::error::Error;
use crate::source::{Fixed, Le, MAX_STREAM, Source, read_up_to, read_vec};

/// The architectures that gopulse measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// The name that Go uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Linux itself refuses program headers over 64 KiB.
const MAX_PHDRS: u16 = 1024;
const MAX_SHDRS: u64 = 65_536;
const MAX_SHSTRTAB: usize = 4 << 20;
const MAX_DYNAMIC: usize = 64 * 1024;

pub(crate) struct Elf<S: Source> {
    pub(crate) src: Fixed<S>,
    pub(crate) arch: Arch,
    pub(crate) pie: bool,
    pub(crate) segments: Vec<Segment>,
    /// Index kept: `link` of a symbol table names its string table by it.
    pub(crate) sections: Vec<Section>,
    pub(crate) notes: Vec<String>,
}

impl<S: Source> Elf<S> {
    pub(crate) fn parse(src: S) -> Result<Self, Error> {
        let src = Fixed::new(src);
        let head = read_up_to(&src, 0, 64)?;
        if !head.starts_with(b"\x7fELF") {
            let start = head.iter().take(4).map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ");
            return Err(Error::NotElf { start: if start.is_empty() { "nothing".into() } else { start } });
        }
        match head.get(4) {
            Some(1) => return Err(Error::ThirtyTwoBit),
            Some(2) => {}
            _ => return Err(Error::Malformed { what: "the ELF class is neither 32 nor 64 bit" }),
        }
        match head.get(5) {
            Some(1) => {}
            Some(2) => return Err(Error::BigEndian),
            _ => return Err(Error::Malformed { what: "the ELF byte order is unknown" }),
        }
        if head.len() < 64 {
            return Err(Error::Truncated { part: "ELF header", end: 64, len: src.len() });
        }
        let kind = head.u16_at(16).unwrap_or(0);
        let arch = match head.u16_at(18).unwrap_or(0) {
            EM_X86_64 => Arch::Amd64,
            EM_AARCH64 => Arch::Arm64,
            other => return Err(Error::UnsupportedMachine(other)),
        };
        if kind != ET_EXEC && kind != ET_DYN {
            return Err(Error::NotExecutable(kind));
        }
        let segments = Self::read_segments(&src, &head)?;
        let mut elf = Self { src, arch, pie: kind == ET_DYN, segments, sections: Vec::new(), notes: Vec::new() };
        elf.read_sections(&head)?;
        Ok(elf)
    }

    fn read_segments(src: &Fixed<S>, head: &[u8]) -> Result<Vec<Segment>, Error> {
        let table = head.u64_at(32).unwrap_or(0);
        let (size, count) = (head.u16_at(54).unwrap_or(0), head.u16_at(56).unwrap_or(0));
        if count == 0 || count > MAX_PHDRS || usize::from(size) != PHDR_SIZE {
            return Err(Error::Malformed { what: "the program headers have an impossible count or size" });
        }
        let len = u64::from(count) * PHDR_SIZE as u64;
        let Some(bytes) = read_vec(src, table, len, usize::MAX)? else {
            let end = table.saturating_add(len);
            return Err(Error::Truncated { part: "program header table", end, len: src.len() });
        };
        let mut segments = Vec::new();
        for header in bytes.chunks_exact(PHDR_SIZE) {
            let kind = header.u32_at(0).unwrap_or(0);
            if !matches!(kind, PT_LOAD | PT_DYNAMIC | PT_NOTE) {
                continue;
            }
            let word = |at| header.u64_at(at).unwrap_or(0);
            let segment = Segment {
                kind,
                flags: header.u32_at(4).unwrap_or(0),
                offset: word(8),
                vaddr: word(16),
                file_size: word(32),
                mem_size: word(40),
            };
            if segment.vaddr.checked_add(segment.mem_size.max(segment.file_size)).is_none() {
                return Err(Error::Malformed { what: "a segment wraps around the address space" });
            }
            let end = segment.offset.saturating_add(segment.file_size);
            if kind == PT_LOAD && end > src.len() {
                return Err(Error::Truncated { part: "program's code or data", end, len: src.len() });
            }
            segments.push(segment);
        }
        // Every search below goes through the segments: overlapping ones would multiply the work.
        let loaded = segments.iter().filter(|s| s.is_load()).fold(0u64, |sum, s| sum.saturating_add(s.file_size));
        if loaded > src.len().saturating_mul(2) {
            return Err(Error::Malformed { what: "the segments overlap in the file" });
        }
        if loaded > MAX_STREAM {
            return Err(Error::Malformed { what: "it loads more than 1 GiB from the file" });
        }
        if !segments.iter().any(Segment::is_load) {
            return Err(Error::Malformed { what: "there is nothing to load" });
        }
        Ok(segments)
    }

    /// Sections are a convenience that the kernel does not need: when they are bad the segments must do.
    fn read_sections(&mut self, head: &[u8]) -> Result<(), Error> {
        let table = head.u64_at(40).unwrap_or(0);
        let size = u64::from(head.u16_at(58).unwrap_or(0));
        let mut count = u64::from(head.u16_at(60).unwrap_or(0));
        let mut names = u64::from(head.u16_at(62).unwrap_or(0));
        if table == 0 || size != SHDR_SIZE {
            return Ok(());
        }
        if count == 0 || names == 0xffff {
            // The true numbers of a file with very many sections are in the first header.
            let Some(first) = read_vec(&self.src, table, SHDR_SIZE, usize::MAX)? else {
                self.notes.push("the section headers lie past the end of the file: searched the segments".into());
                return Ok(());
            };
            if count == 0 {
                count = first.u64_at(32).unwrap_or(0);
            }
            if names == 0xffff {
                names = u64::from(first.u32_at(40).unwrap_or(0));
            }
        }
        if count == 0 || count > MAX_SHDRS {
            return Ok(());
        }
        let Some(bytes) = read_vec(&self.src, table, count * SHDR_SIZE, usize::MAX)? else {
            self.notes.push("the section headers lie past the end of the file: searched the segments".into());
            return Ok(());
        };
        let header = |index: u64| {
            let at = usize::try_from(index.checked_mul(SHDR_SIZE)?).ok()?;
            bytes.get(at..at.checked_add(64)?)
        };
        let strings = match header(names) {
            Some(h) => read_vec(&self.src, h.u64_at(24).unwrap_or(0), h.u64_at(32).unwrap_or(0), MAX_SHSTRTAB)?,
            None => None,
        };
        let Some(strings) = strings else {
            self.notes.push("the section names cannot be read: searched the segments".into());
            return Ok(());
        };
        for header in bytes.chunks_exact(64) {
            let name = header.u32_at(0).unwrap_or(0) as usize;
            let name = strings.get(name..).unwrap_or(&[]);
            let name = name.get(..memchr::memchr(0, name).unwrap_or(0).min(64)).unwrap_or(&[]);
            self.sections.push(Section {
                name: String::from_utf8_lossy(name).into_owned(),
                kind: header.u32_at(4).unwrap_or(0),
                flags: header.u64_at(8).unwrap_or(0),
                addr: header.u64_at(16).unwrap_or(0),
                offset: header.u64_at(24).unwrap_or(0),
                size: header.u64_at(32).unwrap_or(0),
                link: header.u32_at(40).unwrap_or(0),
            });
        }
        Ok(())
    }

    /// A section with bytes inside the file.
    pub(crate) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| {
            s.name == name
                && s.kind != SHT_NOBITS
                && s.offset.checked_add(s.size).is_some_and(|end| end <= self.src.len())
        })
    }

    pub(crate) fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|s| s.is_load())
    }

    /// The longest run of segments that the program cannot write: where it begins, and its length. Linkers put code and constants
    /// side by side.
    pub(crate) fn constants(&self) -> (u64, u64) {
        let mut loads: Vec<&Segment> = self.loads().collect();
        loads.sort_by_key(|s| s.vaddr);
        let runs = loads.split(|s| s.writable()).filter_map(|run| {
            let (first, last) = (run.first()?, run.last()?);
            Some((first.vaddr, last.vaddr.checked_add(last.file_size)?.checked_sub(first.vaddr)?))
        });
        runs.max_by_key(|(_, length)| *length).unwrap_or((0, 0))
    }

    /// The file offset of a link-time address, and how many file bytes follow it in its segment.
    pub(crate) fn file_offset(&self, vaddr: u64) -> Option<(u64, u64)> {
        self.loads().find_map(|s| {
            let inside = vaddr.checked_sub(s.vaddr).filter(|&inside| inside < s.file_size)?;
            Some((s.offset.checked_add(inside)?, s.file_size - inside))
        })
    }

    /// Like [`Self::file_offset`], in executable segments only.
    pub(crate) fn code_offset(&self, vaddr: u64) -> Option<(u64, u64)> {
        self.loads().filter(|s| s.executable()).find_map(|s| {
            let inside = vaddr.checked_sub(s.vaddr).filter(|&inside| inside < s.file_size)?;
            Some((s.offset.checked_add(inside)?, s.file_size - inside))
        })
    }

    /// Whether an address is in writable memory; in the file or, as variables without a value are, behind it.
    pub(crate) fn in_variables(&self, vaddr: u64) -> bool {
        self.loads().filter(|s| s.writable()).any(|s| vaddr.checked_sub(s.vaddr).is_some_and(|at| at < s.mem_size))
    }

    /// The address that a file offset is loaded at.
    pub(crate) fn vaddr_of(&self, offset: u64) -> Option<u64> {
        self.loads().find_map(|s| {
            let inside = offset.checked_sub(s.offset).filter(|&inside| inside < s.file_size)?;
            s.vaddr.checked_add(inside)
        })
    }

    /// Up to `len` bytes at an address.
    pub(crate) fn read(&self, vaddr: u64, len: usize) -> Result<Option<Vec<u8>>, Error> {
        match self.file_offset(vaddr) {
            Some((offset, there)) if there >= len as u64 => Ok(read_vec(&self.src, offset, len as u64, len)?),
            _ => Ok(None),
        }
    }
}
