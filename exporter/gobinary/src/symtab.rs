//! Wanted functions and variables out of `.symtab`. Knows nothing of Go but that its names are plain text here.

use std::collections::HashMap;

use crate::elf::{Elf, SHT_NOBITS, SHT_SYMTAB};
use crate::error::Error;
use crate::function::Function;
use crate::names::{Names, strings};
use crate::source::{Flow, Le, Source, stream};

const SYMBOL_SIZE: usize = 24;
const STT_OBJECT: u8 = 1;
const STT_FUNC: u8 = 2;
const STT_NOTYPE: u8 = 0;
const MAX_FOUND: usize = 65_536;
const MAX_SIZE: u64 = 16 << 20;

/// Whether there is a symbol table.
pub(crate) fn present<S: Source>(elf: &Elf<S>) -> bool {
    elf.sections.iter().any(|s| s.kind == SHT_SYMTAB && s.size > 0)
}

/// A variable at its link-time address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) name: String,
    pub(crate) addr: u64,
    pub(crate) size: u64,
}

/// What the table has of the wanted names, with all duplicates.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    pub(crate) functions: Vec<Function>,
    pub(crate) objects: Vec<Object>,
}

/// Looks for the wanted names.
pub(crate) fn wanted<S: Source>(elf: &Elf<S>, names: &Names<'_>) -> Result<Symbols, Error> {
    let mut found = Symbols::default();
    let Some(table) = elf.sections.iter().find(|s| s.kind == SHT_SYMTAB) else { return Ok(found) };
    let Some(text) = elf.sections.get(table.link as usize).filter(|s| s.kind != SHT_NOBITS) else { return Ok(found) };
    let mut offsets: HashMap<u32, &str> = HashMap::new();
    strings(&elf.src, text.offset, text.size, |offset, name| {
        names.suffixes(name, |inside, wanted| {
            if offsets.len() < MAX_FOUND
                && let Ok(offset) = u32::try_from(offset + inside as u64)
            {
                offsets.insert(offset, wanted);
            }
        });
    })?;
    if offsets.is_empty() {
        return Ok(found);
    }
    stream(&elf.src, table.offset, table.size, SYMBOL_SIZE - 1, |base, chunk| {
        let size = SYMBOL_SIZE as u64;
        let skip = usize::try_from((size - base % size) % size).unwrap_or(0);
        for symbol in chunk.get(skip..).unwrap_or(&[]).chunks_exact(SYMBOL_SIZE) {
            let Some(&name) = symbol.u32_at(0).and_then(|at| offsets.get(&at)) else { continue };
            let kind = symbol.get(4).copied().unwrap_or(0) & 0xf;
            let (addr, len) = (symbol.u64_at(8).unwrap_or(0), symbol.u64_at(16).unwrap_or(0));
            let code = elf.code_offset(addr).is_some();
            if matches!(kind, STT_FUNC | STT_NOTYPE) && code && len > 0 && found.functions.len() < MAX_FOUND {
                found.functions.push(Function { name: name.to_owned(), addr, size: len.min(MAX_SIZE) });
            } else if kind == STT_OBJECT && !code && found.objects.len() < MAX_FOUND {
                found.objects.push(Object { name: name.to_owned(), addr, size: len });
            }
        }
        Flow::Continue
    })?;
    Ok(found)
}
