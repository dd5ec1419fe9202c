//! Where the runtime's own variables are: by the symbol table, and by the code that uses them ([`witnesses`]). Where both
//! answer they must agree. Knows nothing of what is in the variables.

mod names;
pub(crate) mod operands;
mod sense;
mod version;
mod witnesses;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use crate::buildinfo::BuildInfo;
use crate::elf::Elf;
use crate::error::Error;
use crate::function::Function;
use crate::layouts::table::Table;
use crate::pclntab::{self, Located};
use crate::source::{Source, read_up_to};
use crate::symtab::Object;
pub use names::{FoundGlobal, Global, GlobalSource};
use operands::Reference;
pub(crate) use version::recorded_in_runtime;
use witnesses::Uses;

/// The longest code of one witness that is read; Go's longest is under 16 KiB.
const MAX_CODE: u64 = 64 * 1024;

/// The variables of one program, and why others are not known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Globals {
    found: HashMap<Global, FoundGlobal>,
    missing: HashMap<Global, String>,
}

impl Globals {
    pub(crate) fn get(&self, global: Global) -> Option<FoundGlobal> {
        self.found.get(&global).copied()
    }

    pub(crate) fn missing(&self, global: Global) -> Option<&str> {
        self.missing.get(&global).map(String::as_str)
    }
}

/// The symbols that [`find`] needs, variables and functions.
pub(crate) fn symbols() -> impl Iterator<Item = &'static str> {
    Global::ALL.iter().flat_map(|global| global.names().iter().copied()).chain(witnesses::functions())
}

/// What the variables are looked for in.
pub(crate) struct Program<'p, S: Source> {
    pub(crate) elf: &'p Elf<S>,
    pub(crate) table: Option<&'p Located>,
    pub(crate) info: &'p BuildInfo,
    /// Variables by the symbol table.
    pub(crate) objects: &'p [Object],
    /// Functions, those of [`symbols`] among them.
    pub(crate) functions: &'p HashMap<String, Function>,
}

/// Finds the variables. `doubt`: why the recorded version is not to be trusted.
pub(crate) fn find<S: Source>(program: &Program<'_, S>, doubt: Option<&str>) -> Result<Globals, Error> {
    let (elf, version) = (program.elf, &program.info.go_version);
    let module = program.moduledata()?;
    let uses = match doubt {
        Some(doubt) => Err(doubt.to_owned()),
        None if !version.is_known() => Err("the Go version is not recorded in the program".to_owned()),
        None if !witnesses::covers(version) => Err(format!("the code of {version} was not measured")),
        None => program.uses(module)?.ok_or_else(|| "its module data cannot be read".to_owned()),
    };
    let mut globals = Globals::default();
    for &global in Global::ALL {
        let by_code = match (global, &uses) {
            (Global::FirstModuledata, _) => module.ok_or_else(|| "no module data was found".to_owned()),
            (Global::BuildVersion, _) => version::variable(program)?
                .map(|(address, _)| address)
                .ok_or_else(|| format!("{global} was not found in the code of runtime.schedinit")),
            (_, Ok(uses)) => witnesses::derive(global, elf.arch, version, uses),
            (_, Err(reason)) => Err(reason.clone()),
        };
        let from = if global == Global::FirstModuledata { GlobalSource::FunctionTable } else { GlobalSource::Code };
        let by_code = match by_code {
            Ok(address) if !sense::checks(elf, global, address)? => {
                Err(format!("what stands at {address:#x}, where the code has {global}, makes no sense: not used"))
            }
            other => other,
        };
        let found = match (program.by_symbol(global), by_code) {
            (Some(Ok(symbol)), Ok(code)) if symbol != code => {
                Err(format!("{global} is at {symbol:#x} by the symbol table, but at {code:#x} by the code: not used"))
            }
            (Some(Ok(address)), _) => Ok(FoundGlobal { address, from: GlobalSource::Symtab }),
            (Some(Err(reason)), _) | (None, Err(reason)) => Err(reason),
            (None, Ok(address)) => Ok(FoundGlobal { address, from }),
        };
        match found {
            Ok(found) => drop(globals.found.insert(global, found)),
            Err(reason) => drop(globals.missing.insert(global, reason)),
        }
    }
    Ok(globals)
}

/// What the functions of one program with a symbol table do with its variables: function, variable, uses. What
/// `cargo xtask offsets` makes the table of.
pub(crate) fn describe<S: Source>(program: &Program<'_, S>) -> Result<Vec<(&'static str, Global, String)>, Error> {
    let mut all = Vec::new();
    let Some(uses) = program.uses(program.moduledata()?)? else { return Ok(all) };
    for (global, groups) in witnesses::DERIVATIONS {
        let object = program.objects.iter().find(|o| global.names().contains(&o.name.as_str()));
        let Some(object) = object else { continue };
        for function in groups.iter().flat_map(|group| group.iter()) {
            let text = uses.get(function).and_then(|uses| witnesses::describe(uses, object.addr, object.size));
            all.extend(text.map(|text| (*function, *global, text)));
        }
    }
    Ok(all)
}

impl<S: Source> Program<'_, S> {
    fn moduledata(&self) -> Result<Option<u64>, Error> {
        self.table.map_or(Ok(None), |table| pclntab::moduledata(self.elf, table))
    }

    /// The uses of variables in the functions that [`witnesses`] knows. `None` when the module data does not say where
    /// variables are.
    fn uses(&self, module: Option<u64>) -> Result<Option<BTreeMap<&'static str, Uses>>, Error> {
        let Some(regions) = self.variables(module)? else { return Ok(None) };
        let mut all = BTreeMap::new();
        for name in witnesses::functions() {
            if let Some(references) = self.references(name)? {
                all.insert(name, Uses::new(&references, |target| regions.iter().any(|r| r.contains(&target))));
            }
        }
        Ok(Some(all))
    }

    /// Words of the module data; none where it was not found, or the version has not all of them.
    fn module_words(&self, module: Option<u64>, fields: &[&str]) -> Result<Option<Vec<u64>>, Error> {
        const MODULE: &str = "runtime.moduledata";
        let layout = Table::get().wanted(self.elf.arch, self.info, &[(MODULE, fields)]);
        let mut words = Vec::new();
        for field in fields {
            let offset = layout.get(MODULE).and_then(|fields| fields.get(*field));
            let Some((module, offset)) = module.zip(offset) else { return Ok(None) };
            words.push(self.elf.pointer(module.saturating_add(u64::from(*offset)))?.unwrap_or(0));
        }
        Ok(Some(words))
    }

    /// The regions of variables by the module data. Go's linker puts them one behind the other, C's do not.
    fn variables(&self, module: Option<u64>) -> Result<Option<Vec<Range<u64>>>, Error> {
        const BOUNDS: &[&str] = &["noptrdata", "enoptrdata", "data", "edata", "bss", "ebss", "noptrbss", "enoptrbss"];
        let Some(bounds) = self.module_words(module, BOUNDS)? else { return Ok(None) };
        let regions: Vec<_> = bounds.as_chunks::<2>().0.iter().map(|&[from, to]| from..to).collect();
        let sound = |r: &Range<u64>| {
            r.start <= r.end && self.elf.in_variables(r.start) && self.elf.in_variables(r.end.saturating_sub(1))
        };
        Ok(regions.iter().all(sound).then_some(regions))
    }

    /// Where type descriptors and their names are, by the module data: link-time address and length.
    pub(crate) fn types(&self) -> Result<Option<(u64, u64)>, Error> {
        let words = self.module_words(self.moduledata()?, &["types", "etypes"])?;
        let Some(&[from, to]) = words.as_deref() else { return Ok(None) };
        let in_file = self.elf.file_offset(from).is_some() && self.elf.file_offset(to.saturating_sub(1)).is_some();
        // Offsets of names are of 32 bits (runtime/type.go: nameOff).
        let length = to.checked_sub(from).filter(|length| in_file && (1..1 << 31).contains(length));
        Ok(length.map(|length| (from, length)))
    }

    /// What a function refers to.
    fn references(&self, name: &str) -> Result<Option<Vec<Reference>>, Error> {
        let Some(function) = self.functions.get(name) else { return Ok(None) };
        let Some((offset, there)) = self.elf.code_offset(function.addr) else { return Ok(None) };
        let size = function.size.min(there);
        if size > MAX_CODE {
            return Ok(None);
        }
        let code = read_up_to(&self.elf.src, offset, usize::try_from(size).unwrap_or(0))?;
        Ok(Some(operands::references(self.elf.arch, &code, function.addr)))
    }

    /// `None`: the symbol table has no such variable.
    fn by_symbol(&self, global: Global) -> Option<Result<u64, String>> {
        let named = |object: &&Object| global.names().contains(&object.name.as_str());
        let mut here: Vec<u64> = self.objects.iter().filter(named).map(|o| o.addr).collect();
        here.sort_unstable();
        here.dedup();
        Some(match here.as_slice() {
            [] => return None,
            &[address] if self.elf.in_variables(address) => Ok(address),
            &[address] => Err(format!("{global} is at {address:#x} by the symbol table, where no variable is")),
            _ => Err(format!("the symbol table has {} of {global}", here.len())),
        })
    }
}
