//! Finds functions: by the function table, which the runtime itself lives by, and by the symbol table. Knows nothing of what is in them.

use std::collections::HashMap;

use crate::buildinfo::BuildInfo;
use crate::elf::Elf;
use crate::error::Error;
use crate::function::{Function, FunctionsFrom, by_name};
use crate::globals;
use crate::names::Names;
use crate::pclntab::{self, Located};
use crate::source::Source;
use crate::symtab::{self, Object, Symbols};

pub(super) struct FoundFunctions {
    pub(super) functions: HashMap<String, Function>,
    pub(super) from: FunctionsFrom,
    pub(super) text: Option<u64>,
    /// Variables by the symbol table.
    pub(super) objects: Vec<Object>,
    /// Names that the function table has.
    pub(super) named: Vec<String>,
}

impl FoundFunctions {
    pub(super) fn program<'p, S: Source>(
        &'p self,
        elf: &'p Elf<S>,
        table: Option<&'p Located>,
        info: &'p BuildInfo,
    ) -> globals::Program<'p, S> {
        globals::Program { elf, table, info, objects: &self.objects, functions: &self.functions }
    }
}

pub(super) fn find_functions<S: Source>(
    elf: &Elf<S>,
    table: Option<&Located>,
    info: &BuildInfo,
    names: &Names<'_>,
    notes: &mut Vec<String>,
) -> Result<FoundFunctions, Error> {
    let text = match table {
        Some(table) => pclntab::text_start(elf, table)?,
        None => None,
    };
    let matched = match (table, text) {
        (Some(table), Some(text)) => Some(pclntab::wanted(elf, table, text, names)?),
        _ => None,
    };
    let (tabled, named) = matched.map(|it| (by_name(it.functions), it.names)).unzip();
    let named = named.unwrap_or_default();
    let Symbols { functions: symbols, objects } =
        if symtab::present(elf) { symtab::wanted(elf, names)? } else { Symbols::default() };
    let symbols = by_name(symbols);
    let text = text.filter(|&text| text != 0);
    let by_table = FunctionsFrom::Gopclntab;
    match tabled {
        Some(functions) if symbols.is_empty() => Ok(FoundFunctions { functions, from: by_table, text, objects, named }),
        Some(mut functions) => {
            // The runtime itself lives by its function table; a symbol table is a copy that tools may spoil.
            let (mut differ, mut same, mut more) = (0, 0, Vec::new());
            for (name, symbol) in symbols {
                match functions.get_mut(&name) {
                    Some(known) if known.addr == symbol.addr => {
                        same += 1;
                        // Without the padding behind it.
                        known.size = known.size.min(symbol.size);
                    }
                    Some(_) => differ += 1,
                    // Assembly and C functions that have no entry in Go's table.
                    None => more.push((name, symbol)),
                }
            }
            if differ > same {
                notes.push(format!("the symbol table contradicts the function table on {differ} functions: not used"));
                return Ok(FoundFunctions { functions, from: by_table, text, objects: Vec::new(), named });
            }
            functions.extend(more);
            Ok(FoundFunctions { functions, from: FunctionsFrom::SymbolTable, text, objects, named })
        }
        None if !symbols.is_empty() => {
            notes.push("no readable function table (.gopclntab): took the symbol table alone".into());
            Ok(FoundFunctions { functions: symbols, from: FunctionsFrom::SymbolTable, text, objects, named })
        }
        None => match pclntab::foreign_magic(elf)? {
            Some(magic) if pclntab::Magic::from_u32(magic).is_none() => Err(Error::UnknownPclntab(magic)),
            _ => Err(Error::NoPclntab(info.go_version.clone())),
        },
    }
}
