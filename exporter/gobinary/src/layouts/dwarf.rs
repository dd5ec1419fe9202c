//! Wanted structs out of DWARF 4 or 5. Reads type entries of Go's units alone, within fixed limits of memory and work.

mod values;

use std::cell::Cell;
use std::collections::HashMap;

use gimli::{
    Abbreviation, DebugInfo, DebugInfoOffset, DebugStr, EndianSlice, EntriesRaw, LittleEndian, UnitOffset,
    constants as c,
};

use self::values::{Member, Struct, Unit, location, reference};
use super::abbrev::Tables;
use super::section::{Loaded, load};
use super::{Fields, SIZE};
use crate::elf::Elf;
use crate::error::Error;
use crate::source::Source;

/// Over this the table serves; a program of 60 MB has about 20 MiB of `.debug_info`.
const MAX_INFO: u64 = 24 << 20;
const MAX_ABBREV: u64 = 2 << 20;
const MAX_STR: u64 = 4 << 20;
const MAX_UNITS: usize = 65_536;
/// Attributes of one entry: Go's have under 16, C's under 40. Some forms take no bytes at all.
const MAX_ATTRIBUTES: usize = 64;
/// Entries and attributes over all: 24 MiB of honest DWARF have under 20 million.
const MAX_WORK: usize = 48 << 20;
const MAX_MEMBERS: usize = 4096;
const MAX_NESTING: usize = 8;

type Slice<'d> = EndianSlice<'d, LittleEndian>;

/// What DWARF gave.
pub(crate) enum Outcome {
    Found(HashMap<String, Fields>),
    /// Why there is nothing.
    Nothing(String),
}

/// Looks for the wanted structs.
pub(crate) fn read<S: Source>(elf: &Elf<S>, wanted: &[(&str, &[&str])]) -> Result<Outcome, Error> {
    let info = match load(elf, "info", MAX_INFO)? {
        Loaded::Bytes(bytes) => bytes,
        Loaded::Absent => return Ok(Outcome::Nothing("the program has no DWARF".into())),
        Loaded::Bad(why) => return Ok(Outcome::Nothing(why)),
    };
    let abbrev = match load(elf, "abbrev", MAX_ABBREV)? {
        Loaded::Bytes(bytes) => bytes,
        Loaded::Absent => return Ok(Outcome::Nothing("the program's DWARF has no abbreviations".into())),
        Loaded::Bad(why) => return Ok(Outcome::Nothing(why)),
    };
    let strings = match load(elf, "str", MAX_STR)? {
        Loaded::Bytes(bytes) => bytes,
        // Go writes names inline; only C's units need these.
        Loaded::Absent | Loaded::Bad(_) => Vec::new(),
    };
    let found = from_sections(&info, &abbrev, &strings, wanted);
    if found.is_empty() {
        return Ok(Outcome::Nothing("the program's DWARF has none of the wanted Go types".into()));
    }
    Ok(Outcome::Found(found))
}

/// The wanted structs in sections' bytes.
pub(crate) fn from_sections(
    info: &[u8],
    abbrev: &[u8],
    strings: &[u8],
    wanted: &[(&str, &[&str])],
) -> HashMap<String, Fields> {
    Reader::new(info, abbrev, strings).wanted(wanted)
}

struct Reader<'d> {
    info: DebugInfo<Slice<'d>>,
    abbrev: &'d [u8],
    strings: DebugStr<Slice<'d>>,
    tables: Tables,
    units: Vec<Unit<'d>>,
    work: Cell<usize>,
}

impl<'d> Reader<'d> {
    fn new(info: &'d [u8], abbrev: &'d [u8], strings: &'d [u8]) -> Self {
        Self {
            info: DebugInfo::new(info, LittleEndian),
            abbrev,
            strings: DebugStr::new(strings, LittleEndian),
            tables: Tables::default(),
            units: Vec::new(),
            work: Cell::new(0),
        }
    }

    fn wanted(mut self, wanted: &[(&str, &[&str])]) -> HashMap<String, Fields> {
        self.collect_units();
        let mut left: HashMap<&[u8], &[&str]> = wanted.iter().map(|(ty, f)| (ty.as_bytes(), *f)).collect();
        let mut found = HashMap::new();
        for index in 0..self.units.len() {
            if left.is_empty() {
                break;
            }
            let Some(hits) = self.structs_named(index, &left) else { continue };
            for (name, offset) in hits {
                let Some(fields) = left.get(name.as_slice()) else { continue };
                let offsets = self.fields(offset, fields);
                if offsets.is_empty() {
                    continue;
                }
                left.remove(name.as_slice());
                found.insert(String::from_utf8_lossy(&name).into_owned(), offsets);
            }
        }
        found
    }

    /// Keeps the headers of units that Go's compiler wrote.
    fn collect_units(&mut self) {
        let mut headers = self.info.units();
        while let Ok(Some(header)) = headers.next() {
            if self.units.len() >= MAX_UNITS {
                break;
            }
            let Some(abbreviations) = self.tables.at(self.abbrev, header.debug_abbrev_offset().0) else { continue };
            let Some(start) = header.debug_info_offset().map(|o: DebugInfoOffset<usize>| o.0) else { continue };
            let unit = Unit { start, header, abbreviations };
            if self.is_go(&unit) {
                self.units.push(unit);
            }
        }
    }

    /// Reads the next entry's abbreviation; `None` at the end of the unit or of what may be done.
    #[expect(clippy::option_option, reason = "the inner None is the null entry that ends a list of children")]
    fn next<'r>(&self, entries: &mut EntriesRaw<'r, Slice<'d>>) -> Option<Option<&'r Abbreviation>> {
        if entries.is_empty() {
            return None;
        }
        let entry = entries.read_abbreviation().ok()?;
        let attributes = entry.map_or(0, |entry| entry.attributes().len());
        (attributes <= MAX_ATTRIBUTES && self.may_do(1 + attributes)).then_some(entry)
    }

    /// Counts work; false when it was too much.
    fn may_do(&self, work: usize) -> bool {
        self.work.set(self.work.get().saturating_add(work));
        self.work.get() < MAX_WORK
    }

    fn entries<'r>(&'r self, unit: &'r Unit<'d>, at: Option<usize>) -> Option<EntriesRaw<'r, Slice<'d>>> {
        let table = self.tables.get(unit.abbreviations)?;
        let offset = match at {
            Some(at) => Some(UnitOffset(at.checked_sub(unit.start)?)),
            None => None,
        };
        unit.header.entries_raw(table, offset).ok()
    }

    fn is_go(&self, unit: &Unit<'d>) -> bool {
        let Some(mut entries) = self.entries(unit, None) else { return false };
        let Some(Some(root)) = self.next(&mut entries) else { return false };
        for &spec in root.attributes() {
            let Ok(attribute) = entries.read_attribute(spec) else { return false };
            if attribute.name() == c::DW_AT_language {
                return attribute.udata_value() == Some(u64::from(c::DW_LANG_Go.0));
            }
        }
        false
    }

    /// The wanted structs of a unit, with their offsets in `.debug_info`.
    fn structs_named(&self, index: usize, wanted: &HashMap<&[u8], &[&str]>) -> Option<Vec<(Vec<u8>, usize)>> {
        let unit = self.units.get(index)?;
        let mut entries = self.entries(unit, None)?;
        let mut found = Vec::new();
        loop {
            let (at, depth) = (entries.next_offset().0, entries.next_depth());
            let Some(entry) = self.next(&mut entries) else { break };
            let Some(entry) = entry else { continue };
            if entry.tag() != c::DW_TAG_structure_type || depth != 1 {
                if entries.skip_attributes(entry.attributes()).is_err() {
                    break;
                }
                continue;
            }
            let mut name = None;
            for &spec in entry.attributes() {
                let Ok(attribute) = entries.read_attribute(spec) else { return Some(found) };
                if attribute.name() == c::DW_AT_name {
                    name = attribute.string_value(&self.strings);
                }
            }
            if let Some(name) = name
                && wanted.contains_key(name.slice())
            {
                found.push((name.slice().to_vec(), unit.start + at));
            }
        }
        Some(found)
    }

    fn fields(&self, at: usize, wanted: &[&str]) -> Fields {
        let mut fields = Fields::new();
        let Some(this) = self.structure(at) else { return fields };
        for &field in wanted {
            if let Some(offset) = self.field(&this, field) {
                fields.insert(field.to_owned(), offset);
            }
        }
        if let Some(size) = this.size {
            fields.insert(SIZE.to_owned(), size);
        }
        fields
    }

    /// The offset of a path such as `sched.sp`.
    fn field(&self, this: &Struct<'d>, path: &str) -> Option<u32> {
        let mut nested;
        let mut current = this;
        let mut offset = 0u32;
        let mut parts = path.split('.').peekable();
        for _ in 0..MAX_NESTING {
            let part = parts.next()?;
            if !self.may_do(current.members.len()) {
                return None;
            }
            let (_, at, ty) = current.members.iter().find(|(name, ..)| *name == part.as_bytes())?;
            offset = offset.checked_add(*at)?;
            if parts.peek().is_none() {
                return Some(offset);
            }
            nested = self.structure((*ty)?)?;
            current = &nested;
        }
        None
    }

    /// The struct at an offset, through typedefs.
    fn structure(&self, mut at: usize) -> Option<Struct<'d>> {
        for _ in 0..MAX_NESTING {
            let index = self.units.partition_point(|u| u.start <= at).checked_sub(1)?;
            let unit = self.units.get(index)?;
            let mut entries = self.entries(unit, Some(at))?;
            let entry = self.next(&mut entries)??;
            let (mut size, mut target) = (None, None);
            for &spec in entry.attributes() {
                let attribute = entries.read_attribute(spec).ok()?;
                match attribute.name() {
                    c::DW_AT_byte_size => size = attribute.udata_value().and_then(|n| u32::try_from(n).ok()),
                    c::DW_AT_type => target = reference(unit, &attribute.value()),
                    _ => {}
                }
            }
            match entry.tag() {
                c::DW_TAG_structure_type if entry.has_children() => {
                    return Some(Struct { size, members: self.members(unit, entries) });
                }
                c::DW_TAG_structure_type => return Some(Struct { size, members: Vec::new() }),
                c::DW_TAG_typedef => at = target?,
                _ => return None,
            }
        }
        None
    }

    fn members(&self, unit: &Unit<'d>, mut entries: EntriesRaw<'_, Slice<'d>>) -> Vec<Member<'d>> {
        let mut members = Vec::new();
        while members.len() < MAX_MEMBERS {
            let Some(Some(entry)) = self.next(&mut entries) else { break };
            let (mut name, mut at, mut ty) = (None, None, None);
            for &spec in entry.attributes() {
                let Ok(attribute) = entries.read_attribute(spec) else { return members };
                match attribute.name() {
                    c::DW_AT_name => name = attribute.string_value(&self.strings),
                    c::DW_AT_data_member_location => at = location(&attribute.value()),
                    c::DW_AT_type => ty = reference(unit, &attribute.value()),
                    _ => {}
                }
            }
            if entry.tag() == c::DW_TAG_member
                && let (Some(name), Some(at)) = (name, at)
            {
                members.push((name.slice(), at, ty));
            }
            if entry.has_children() {
                break;
            }
        }
        members
    }
}

#[cfg(test)]
mod tests;
