//! Abbreviation tables within a budget: units may name overlapping tables, each of which would be parsed and kept.

use std::collections::HashMap;

use gimli::{Abbreviations, DebugAbbrev, DebugAbbrevOffset, LittleEndian, constants as c};

/// Go's own table takes about 1 KiB, a C unit's hardly more.
const MAX_TABLE: usize = 64 * 1024;
const MAX_TABLES: usize = 1024;
/// Over all tables. What is kept of an entry takes some twenty times its bytes.
const MAX_TOTAL: usize = 1 << 20;

/// The tables parsed so far.
#[derive(Default)]
pub(super) struct Tables {
    parsed: Vec<Abbreviations>,
    /// By place in `.debug_abbrev`; `None` for what is no table.
    places: HashMap<usize, Option<usize>>,
    bytes: usize,
}

impl Tables {
    pub(super) fn get(&self, index: usize) -> Option<&Abbreviations> {
        self.parsed.get(index)
    }

    /// The index of the table at an offset, parsed at first sight. Go's units share one.
    pub(super) fn at(&mut self, section: &[u8], offset: usize) -> Option<usize> {
        if let Some(known) = self.places.get(&offset) {
            return *known;
        }
        if self.places.len() >= MAX_TABLES {
            return None;
        }
        let index = self.parse(section, offset);
        self.places.insert(offset, index);
        index
    }

    fn parse(&mut self, section: &[u8], offset: usize) -> Option<usize> {
        let table = section.get(offset..)?;
        let table = table.get(..MAX_TABLE).unwrap_or(table);
        let table = table.get(..length(table)?)?;
        self.bytes += table.len();
        if self.bytes > MAX_TOTAL {
            return None;
        }
        self.parsed.push(DebugAbbrev::new(table, LittleEndian).abbreviations(DebugAbbrevOffset(0)).ok()?);
        Some(self.parsed.len() - 1)
    }
}

/// The bytes of the table at the start of these, its final zero among them.
fn length(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    loop {
        if leb(&mut rest)? == 0 {
            return Some(bytes.len() - rest.len());
        }
        leb(&mut rest)?;
        rest = rest.get(1..)?;
        loop {
            let (name, form) = (leb(&mut rest)?, leb(&mut rest)?);
            if form == u64::from(c::DW_FORM_implicit_const.0) {
                leb(&mut rest)?;
            }
            if (name, form) == (0, 0) {
                break;
            }
        }
    }
}

/// Takes an LEB128 number. Bits past the 64th are dropped: gimli refuses such a table.
fn leb(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0u64, 0u32);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift = shift.saturating_add(7);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_ends_at_its_zero() {
        // structure_type with children: name as string, byte_size as implicit_const -1.
        let table = [1, 0x13, 1, 3, 8, 0x0b, 0x21, 0x7f, 0, 0, 0, 9, 9];
        assert_eq!(length(&table), Some(11));
        assert_eq!(length(&table[..10]), None);
        assert_eq!(Tables::default().at(&table, 0), Some(0));
        assert_eq!(Tables::default().at(&table, 99), None);
    }

    /// Found by thinking of it: tables that begin at each entry of one long list were all kept, 1.5 GB of them.
    #[test]
    fn overlapping_tables_have_a_budget() {
        let entries = 8000u32;
        let mut section = Vec::new();
        for code in 0..entries {
            let code = code + 1;
            section.extend([code as u8 | 0x80, (code >> 7) as u8 & 0x7f, 0x13, 0, 0, 0]);
        }
        section.push(0);
        let mut tables = Tables::default();
        let kept = (0..1000).filter(|entry| tables.at(&section, entry * 6).is_some()).count();
        assert!((1..=MAX_TOTAL / (7000 * 6)).contains(&kept), "{kept}");
    }
}
