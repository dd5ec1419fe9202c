//! Where the function table is, and where text starts.

use memchr::memmem;

use super::{HEADER_SIZE, Header, Magic};
use crate::elf::{Elf, Segment};
use crate::error::Error;
use crate::source::{Flow, Source, read_up_to, stream};

/// Where linkers put the table; `.data.rel.ro.gopclntab` in internally linked PIEs up to Go 1.25.
pub(super) const SECTIONS: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Candidates are cheap to dismiss, but not free.
const MAX_CANDIDATES: usize = 4096;

/// A function table and where it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located {
    pub(crate) header: Header,
    pub(crate) offset: u64,
    pub(crate) vaddr: u64,
    /// Bytes of the file that may belong to it.
    pub(crate) len: u64,
}

/// Finds the table by section, or, in files without section headers and where it lies inside `.data.rel.ro`
/// (externally linked PIEs up to Go 1.25), by looking for a valid header.
pub(crate) fn locate<S: Source>(elf: &Elf<S>) -> Result<Option<Located>, Error> {
    for name in SECTIONS {
        let Some(section) = elf.section(name) else { continue };
        let bytes = read_up_to(&elf.src, section.offset, HEADER_SIZE)?;
        if let Some(header) = Header::parse(&bytes, elf.arch) {
            let found = Located { header, offset: section.offset, vaddr: section.addr, len: section.size };
            return Ok(Some(found));
        }
    }
    // Read-only data first: that is where it is in all but PIEs.
    for writable in [false, true] {
        for segment in elf.loads().filter(|s| s.writable() == writable) {
            if let Some(found) = scan(elf, segment)? {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

fn scan<S: Source>(elf: &Elf<S>, segment: &Segment) -> Result<Option<Located>, Error> {
    let finder = memmem::Finder::new(b"\xff\xff\xff\x00\x00");
    let mut found = None;
    let mut candidates = 0;
    stream(&elf.src, segment.offset, segment.file_size, HEADER_SIZE, |base, chunk| {
        for at in finder.find_iter(chunk) {
            // The first byte of the magic stands before the pattern.
            let Some(start) = at.checked_sub(1) else { continue };
            let inside = base + start as u64;
            if !(segment.vaddr + inside).is_multiple_of(8) {
                continue;
            }
            let header = chunk.get(start..).and_then(|bytes| Header::parse(bytes, elf.arch));
            let len = segment.file_size - inside;
            if let Some(header) = header.filter(|h| h.functab < len) {
                found = Some(Located { header, offset: segment.offset + inside, vaddr: segment.vaddr + inside, len });
                return Flow::Stop;
            }
            candidates += 1;
            if candidates > MAX_CANDIDATES {
                return Flow::Stop;
            }
        }
        Flow::Continue
    })?;
    Ok(found)
}

/// The link-time address that functab's offsets count from, with the moduledata if it was looked for.
///
/// The section `.text` is not it under external linking (C's start-up code comes first). Up to Go 1.25 the header has
/// it; from 1.26 on the moduledata alone.
pub(crate) fn text_start<S: Source>(elf: &Elf<S>, table: &Located) -> Result<Option<u64>, Error> {
    if table.header.magic == Magic::Go116 {
        // functab holds addresses, not offsets.
        return Ok(Some(0));
    }
    if !table.header.is_126_or_newer() {
        let stored = elf.pointer(table.vaddr.saturating_add(24))?.unwrap_or(0);
        if stored != 0 && elf.code_offset(stored).is_some() {
            return Ok(Some(stored));
        }
    }
    let Some(module) = moduledata(elf, table)? else { return Ok(None) };
    // runtime.moduledata.text: 176 in every version from 1.21 to 1.27 (1.26 is the first that needs it).
    let text = elf.pointer(module.saturating_add(176))?;
    Ok(text.filter(|&text| elf.code_offset(text).is_some()))
}

/// The address of runtime.firstmoduledata: it starts with the addresses of the table and of its names.
pub(crate) fn moduledata<S: Source>(elf: &Elf<S>, table: &Located) -> Result<Option<u64>, Error> {
    let names = table.vaddr.saturating_add(table.header.funcname);
    let mut pair = [0u8; 16];
    pair[..8].copy_from_slice(&table.vaddr.to_le_bytes());
    pair[8..].copy_from_slice(&names.to_le_bytes());
    let finder = memmem::Finder::new(&pair);
    for segment in elf.loads().filter(|s| s.writable()) {
        let mut found = None;
        stream(&elf.src, segment.offset, segment.file_size, 15, |base, chunk| {
            for at in finder.find_iter(chunk) {
                let vaddr = segment.vaddr + base + at as u64;
                if vaddr.is_multiple_of(8) {
                    found = Some(vaddr);
                    return Flow::Stop;
                }
            }
            Flow::Continue
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    // Linkers that leave relocated words zero: the pair is in the relocations alone.
    let firsts = elf.relative_addends(0, u64::MAX, Some(table.vaddr))?;
    if firsts.is_empty() {
        return Ok(None);
    }
    let seconds = elf.relative_addends(0, u64::MAX, Some(names))?;
    for (place, _) in firsts {
        let next = place.saturating_add(8);
        if place.is_multiple_of(8) && seconds.binary_search(&(next, names)).is_ok() {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::Arch;
    use crate::source::Le;

    fn header(magic: u32, words: &[u64]) -> Vec<u8> {
        let mut bytes = magic.to_le_bytes().to_vec();
        bytes.extend([0, 0, 1, 8]);
        for word in words {
            bytes.extend(word.to_le_bytes());
        }
        bytes.resize(HEADER_SIZE.max(bytes.len()), 0);
        bytes
    }

    #[test]
    fn headers_of_each_generation() {
        let h = Header::parse(&header(0xffff_fff1, &[10, 2, 0x40_1000, 0x60, 0x100, 0x200, 0x300, 0x400]), Arch::Amd64);
        let h = h.unwrap();
        assert_eq!((h.magic, h.nfunc, h.functab), (Magic::Go120, 10, 0x400));
        let h = Header::parse(&header(0xffff_fffa, &[10, 2, 0x40, 0x100, 0x200, 0x300, 0x400]), Arch::Amd64).unwrap();
        assert_eq!((h.magic, h.funcname, h.functab), (Magic::Go116, 0x40, 0x400));
    }

    #[test]
    fn nonsense_is_no_header() {
        let good = [10, 2, 0x40_1000, 0x60, 0x100, 0x200, 0x300, 0x400];
        assert!(Header::parse(&header(0xffff_fff2, &good), Arch::Amd64).is_none());
        assert!(Header::parse(&header(0xffff_fff1, &good), Arch::Arm64).is_none());
        assert!(Header::parse(&header(0xffff_fff1, &[0, 2, 0, 0x60, 1, 2, 3, 4]), Arch::Amd64).is_none());
        assert!(
            Header::parse(&header(0xffff_fff1, &[u64::MAX, 2, 0, 0x60, 0x100, 0x200, 0x300, 0x400]), Arch::Amd64)
                .is_none()
        );
        assert!(Header::parse(&[0xf1, 0xff], Arch::Amd64).is_none());
        assert_eq!(header(1, &[]).u64_at(64), Some(0));
    }
}
