//! Picks wanted functions out of the table, streaming it.

use std::collections::HashMap;

use super::{Located, Magic};
use crate::elf::Elf;
use crate::error::Error;
use crate::function::Function;
use crate::names::{Names, strings};
use crate::source::{Le, Source, Window};

/// How many functions of wanted names are kept: names are few, duplicates (ABI wrappers) rarer.
const MAX_FOUND: usize = 65_536;
/// Go functions are at most a few hundred KiB; an absurd end is cut here.
const MAX_SIZE: u64 = 16 << 20;

/// What the function table has of the names that were looked for.
pub(crate) struct Matched {
    /// Functions with code of their own.
    pub(crate) functions: Vec<Function>,
    /// All names, also those of functions that were inlined wherever they are called.
    pub(crate) names: Vec<String>,
}

/// The wanted functions with all their duplicates.
pub(crate) fn wanted<S: Source>(elf: &Elf<S>, table: &Located, text: u64, names: &Names<'_>) -> Result<Matched, Error> {
    matching(elf, table, text, |name| names.get(name).map(str::to_owned))
}

/// The functions whose name `pick` makes something of.
pub(crate) fn matching<S: Source>(
    elf: &Elf<S>,
    table: &Located,
    text: u64,
    pick: impl FnMut(&[u8]) -> Option<String>,
) -> Result<Matched, Error> {
    let offsets = name_offsets(elf, table, pick)?;
    let mut found = Vec::new();
    if offsets.is_empty() {
        return Ok(Matched { functions: found, names: Vec::new() });
    }
    let width: usize = if table.header.magic == Magic::Go116 { 8 } else { 4 };
    let tab_start = table.offset.saturating_add(table.header.functab);
    let pointers = Pointers::of(elf, table, text)?;
    let (mut tab, mut funcs) = (Window::new(&elf.src), Window::new(&elf.src));
    for index in 0..table.header.nfunc {
        // An entry and, behind it, the next entry's address, which is this function's end.
        let at = tab_start.saturating_add(index * 2 * width as u64);
        let Some(entry) = tab.get(at, 3 * width)? else { break };
        let word = |at: usize| if width == 8 { entry.u64_at(at) } else { entry.u32_at(at).map(u64::from) };
        let (Some(start), Some(func), Some(end)) = (word(0), word(width), word(2 * width)) else { break };
        // _func.nameoff follows the entry, which is a pointer up to 1.17 and a 32-bit offset since.
        let name_at = tab_start.saturating_add(func).saturating_add(width as u64);
        let Some(name) = funcs.get(name_at, 4)?.and_then(|b| b.u32_at(0)) else { continue };
        let Some(name) = offsets.get(&name) else { continue };
        let (start, end) = pointers.resolve(index, start, end);
        if end > start && elf.code_offset(start).is_some() && found.len() < MAX_FOUND {
            found.push(Function { name: name.clone(), addr: start, size: (end - start).min(MAX_SIZE) });
        }
    }
    Ok(Matched { functions: found, names: offsets.into_values().collect() })
}

/// How a functab entry becomes an address.
enum Pointers {
    /// Offset from the start of text.
    Offset(u64),
    /// The address itself (Go 1.17).
    Direct,
    /// The address in the relocations, by entry index (Go 1.17, PIE by a linker that leaves zero in place).
    Relocated(HashMap<u64, u64>),
}

impl Pointers {
    fn of<S: Source>(elf: &Elf<S>, table: &Located, text: u64) -> Result<Self, Error> {
        if table.header.magic != Magic::Go116 {
            return Ok(Self::Offset(text));
        }
        let start = table.vaddr.saturating_add(table.header.functab);
        let first = elf.read(start, 8)?.and_then(|b| b.u64_at(0)).unwrap_or(0);
        if !elf.pie || first != 0 {
            return Ok(Self::Direct);
        }
        let end = start.saturating_add(table.header.nfunc.saturating_mul(16)).saturating_add(8);
        let addends = elf.relative_addends(start, end, None)?;
        Ok(Self::Relocated(addends.into_iter().map(|(place, value)| ((place - start) / 16, value)).collect()))
    }

    fn resolve(&self, index: u64, start: u64, end: u64) -> (u64, u64) {
        match self {
            Self::Offset(text) => (text.saturating_add(start), text.saturating_add(end)),
            Self::Direct => (start, end),
            Self::Relocated(values) => {
                let value = |index| values.get(&index).copied().unwrap_or(0);
                (value(index), value(index + 1))
            }
        }
    }
}

/// Offsets, in the name table, of the wanted names. Names are NUL-terminated and each stands there once.
fn name_offsets<S: Source>(
    elf: &Elf<S>,
    table: &Located,
    mut pick: impl FnMut(&[u8]) -> Option<String>,
) -> Result<HashMap<u32, String>, Error> {
    let start = table.header.funcname;
    let len = table.header.cu.min(table.len).saturating_sub(start);
    let mut found = HashMap::new();
    strings(&elf.src, table.offset.saturating_add(start), len, |offset, name| {
        if found.len() < MAX_FOUND
            && let Ok(offset) = u32::try_from(offset)
            && let Some(name) = pick(name)
        {
            found.insert(offset, name);
        }
    })?;
    Ok(found)
}
