//! Words of a position-independent program that its loader fills in: their values are in the relocations. Knows nothing of Go.

use super::{Arch, Elf, MAX_DYNAMIC, PT_DYNAMIC};
use crate::error::Error;
use crate::source::{Flow, Le, Source, read_up_to, stream};

/// Addends kept from one look at the relocations.
const MAX_ADDENDS: usize = 1 << 20;
/// `Elf64_Rela`: place, kind and symbol, addend.
const ENTRY: u64 = 24;

impl<S: Source> Elf<S> {
    /// The word at an address, as the loader would leave it but for the load bias. Linkers of RELA platforms may put the value
    /// in the relocation alone, and leave zero in place (LLVM's does) or what the compiler had there (GNU's for arm64).
    pub(crate) fn pointer(&self, vaddr: u64) -> Result<Option<u64>, Error> {
        let in_place = self.read(vaddr, 8)?.and_then(|b| b.u64_at(0));
        if !self.pie || in_place.is_none() {
            return Ok(in_place);
        }
        let sorted = self.sorted_addend(vaddr)?;
        if sorted.is_some() || in_place != Some(0) {
            return Ok(sorted.or(in_place));
        }
        let addends = self.relative_addends(vaddr, vaddr.saturating_add(1), None)?;
        Ok(addends.first().map(|&(_, addend)| addend).or(in_place))
    }

    /// The addend of the RELATIVE relocation of one place, where a linker has sorted them, as GNU's and LLVM's do
    /// (`-z combreloc`) and Go's own does not. A few reads, where a look at them all would be megabytes.
    fn sorted_addend(&self, vaddr: u64) -> Result<Option<u64>, Error> {
        let Some((table, size)) = self.rela()? else { return Ok(None) };
        let (mut low, mut high) = (0, size / ENTRY);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = read_up_to(&self.src, table.saturating_add(middle * ENTRY), ENTRY as usize)?;
            let (Some(place), Some(info), Some(value)) = (entry.u64_at(0), entry.u64_at(8), entry.u64_at(16)) else {
                return Ok(None);
            };
            // Relocations of other kinds come after the relative ones.
            if info & 0xffff_ffff != self.relative() || place > vaddr {
                high = middle;
            } else if place < vaddr {
                low = middle + 1;
            } else {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// `R_X86_64_RELATIVE`, `R_AARCH64_RELATIVE`.
    fn relative(&self) -> u64 {
        match self.arch {
            Arch::Amd64 => 8,
            Arch::Arm64 => 1027,
        }
    }

    /// Addends of RELATIVE relocations whose place is in `from..to`, or, given `addend`, whose addend is that; by place.
    pub(crate) fn relative_addends(&self, from: u64, to: u64, addend: Option<u64>) -> Result<Vec<(u64, u64)>, Error> {
        let relative = self.relative();
        let mut found = Vec::new();
        let Some((rela, size)) = self.rela()? else { return Ok(found) };
        stream(&self.src, rela, size, 23, |base, chunk| {
            // Chunks overlap by less than an entry; each is read from its first whole entry on.
            let skip = usize::try_from((24 - base % 24) % 24).unwrap_or(0);
            for entry in chunk.get(skip..).unwrap_or(&[]).chunks_exact(24) {
                let (place, info, value) = (entry.u64_at(0), entry.u64_at(8), entry.u64_at(16));
                let (Some(place), Some(info), Some(value)) = (place, info, value) else { continue };
                let hit = place >= from && place < to && addend.is_none_or(|wanted| wanted == value);
                if info & 0xffff_ffff == relative && hit && found.len() < MAX_ADDENDS {
                    found.push((place, value));
                }
            }
            Flow::Continue
        })?;
        found.sort_unstable();
        Ok(found)
    }

    /// File offset and size of the RELA table, from the dynamic segment.
    fn rela(&self) -> Result<Option<(u64, u64)>, Error> {
        let Some(dynamic) = self.segments.iter().find(|s| s.kind == PT_DYNAMIC) else { return Ok(None) };
        let len = usize::try_from(dynamic.file_size).unwrap_or(usize::MAX).min(MAX_DYNAMIC);
        let bytes = read_up_to(&self.src, dynamic.offset, len)?;
        let (mut table, mut size) = (None, None);
        for entry in bytes.chunks_exact(16) {
            match entry.u64_at(0) {
                Some(0) => break,
                Some(7) => table = entry.u64_at(8),
                Some(8) => size = entry.u64_at(8),
                _ => {}
            }
        }
        let (Some(table), Some(size)) = (table, size) else { return Ok(None) };
        Ok(self.file_offset(table).map(|(offset, there)| (offset, size.min(there))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELATIVE: u64 = 1027;
    const JUMP_SLOT: u64 = 1026;
    /// Where the words are, and what stands there.
    const WORDS: u64 = 0x400;

    /// An arm64 PIE of one segment, file offsets being addresses, with these relocations and these words.
    fn program(relocations: &[[u64; 3]], words: &[u64]) -> Vec<u8> {
        let mut file = vec![0_u8; 0x800];
        let mut put = |at: u64, bytes: &[u8]| file[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &3_u16.to_le_bytes());
        put(18, &183_u16.to_le_bytes());
        put(32, &64_u64.to_le_bytes());
        put(54, &56_u16.to_le_bytes());
        put(56, &2_u16.to_le_bytes());
        for (header, kind, at, size) in [(64_u64, 1_u32, 0_u64, 0x800_u64), (120, PT_DYNAMIC, 0x100, 48)] {
            put(header, &kind.to_le_bytes());
            for (field, value) in [(8, at), (16, at), (32, size), (40, size)] {
                put(header + field, &value.to_le_bytes());
            }
        }
        let dynamic = [7, 0x200, 8, relocations.len() as u64 * ENTRY, 0, 0_u64];
        for (start, all) in [(0x100, &dynamic[..]), (0x200, relocations.as_flattened()), (WORDS, words)] {
            for (i, value) in all.iter().enumerate() {
                put(start + 8 * i as u64, &value.to_le_bytes());
            }
        }
        file
    }

    #[test]
    fn a_relocation_counts_for_more_than_what_is_in_place() {
        let words = [0x999, 0, 0x777, 0];
        let sorted: Vec<_> = (0..3).map(|i| [WORDS + 8 * i, RELATIVE, 0x1000 + i]).collect();
        let others: Vec<_> = (0..9).map(|i| [8 * i, JUMP_SLOT, 0xdead]).collect();
        let file = program(&[sorted.clone(), others].concat(), &words);
        let elf = Elf::parse(&file[..]).unwrap();
        let pointer = |i: u64| elf.pointer(WORDS + 8 * i).unwrap();
        assert_eq!((0..4).map(pointer).collect::<Vec<_>>(), [Some(0x1000), Some(0x1001), Some(0x1002), Some(0)]);
        assert_eq!(elf.pointer(0x10_0000).unwrap(), None, "not in the file");

        // Out of order, as Go's own linker leaves them, which puts the value in place too.
        let shuffled = program(&[sorted[2], sorted[0], sorted[1]], &[0x1000, 0, 0x1002, 0]);
        let elf = Elf::parse(&shuffled[..]).unwrap();
        let pointer = |i: u64| elf.pointer(WORDS + 8 * i).unwrap();
        assert_eq!((0..4).map(pointer).collect::<Vec<_>>(), [Some(0x1000), Some(0x1001), Some(0x1002), Some(0)]);
    }
}
