//! Puts the parts together: an ELF file in, a `GoBinary` out. Holds no file: what is asked later was kept.

mod functions;
mod places;
mod refused;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use self::functions::find_functions;
use self::refused::{no_go, refuse_old};
use crate::buildinfo::{self, BuildInfo};
use crate::elf::{Arch, Elf};
use crate::error::Error;
use crate::function::{Function, FunctionsFrom};
use crate::globals::{self, FoundGlobal, Global, Globals};
use crate::layouts::experiments::Moved;
use crate::layouts::table::Table;
use crate::layouts::{Layouts, LayoutsFrom, dwarf};
use crate::names::Names;
use crate::pclntab;
use crate::source::{Source, read_up_to};
use crate::{note, verify};

/// The longest function whose code is kept: Go's largest that anyone probes are under 20 KiB.
const MAX_CODE: u64 = 256 * 1024;
/// Over all wanted functions.
const MAX_CODE_TOTAL: u64 = 8 << 20;

/// A Go executable, inspected.
#[derive(Debug, Clone)]
pub struct GoBinary {
    /// Its architecture.
    pub arch: Arch,
    /// Whether it is loaded at an address that is chosen at run time.
    pub pie: bool,
    /// Link-time address and length of what it cannot write: its code and its constants, string literals among them.
    pub constants: (u64, u64),
    /// Link-time address and length of its type descriptors and their names (`runtime.moduledata.types`, `etypes`), where the
    /// version's layout is known.
    pub types: Option<(u64, u64)>,
    /// What the linker recorded.
    pub build_info: BuildInfo,
    /// The GNU build id in hex, or Go's own.
    pub build_id: Option<String>,
    /// Where function addresses came from.
    pub functions_from: FunctionsFrom,
    /// Link-time address of the function table.
    pub pclntab: Option<u64>,
    /// Link-time address of `runtime.text`.
    pub text_start: Option<u64>,
    /// Bytes of the file that were read for all this.
    pub bytes_read: u64,
    /// What was odd but did not stop the inspection, one line each.
    pub notes: Vec<String>,
    /// Why the recorded Go version cannot be true; empty for honest programs.
    pub contradictions: Vec<String>,
    functions: HashMap<String, Function>,
    named: Vec<String>,
    layouts: Layouts,
    globals: Globals,
    code: HashMap<u64, Box<[u8]>>,
    code_segments: Vec<(u64, u64, u64)>,
}

/// Whether a file looks like a Go executable, after reading a few KB: its headers and, when it has no section headers,
/// the start of its data. Errors say why it is none that could be inspected.
pub fn is_go<S: Source>(src: S) -> Result<bool, Error> {
    buildinfo::quick(&Elf::parse(src)?)
}

/// The GNU build id of an executable in hex, or else Go's own as text: what tells it from another that `stat` does not tell it
/// from. Reads its headers and notes alone.
pub fn build_id<S: Source>(src: S) -> Result<Option<String>, Error> {
    note::build_id(&Elf::parse(src)?)
}

/// The functions of the function table whose name starts with `prefix`, by address; at most 65,536. For tools that
/// explore: probing needs [`GoBinary::parse`] with exact names, which keeps far less.
pub fn functions_with_prefix<S: Source>(src: S, prefix: &str) -> Result<Vec<Function>, Error> {
    let elf = Elf::parse(src)?;
    let Some(table) = pclntab::locate(&elf)? else { return Err(no_go(&elf)?) };
    let Some(text) = pclntab::text_start(&elf, &table)? else { return Ok(Vec::new()) };
    let mut found = pclntab::matching(&elf, &table, text, |name| {
        name.starts_with(prefix.as_bytes()).then(|| String::from_utf8_lossy(name).into_owned())
    })?
    .functions;
    found.sort_unstable_by(|a, b| (a.addr, &a.name).cmp(&(b.addr, &b.name)));
    Ok(found)
}

/// The layouts that the program's own DWARF has, without checks and without the table: what the table is made of.
pub fn dwarf_layouts<S: Source>(src: S, wanted: &[(&str, &[&str])]) -> Result<Layouts, Error> {
    Ok(match dwarf::read(&Elf::parse(src)?, wanted)? {
        dwarf::Outcome::Found(types) => Layouts::new(LayoutsFrom::Dwarf, None, types),
        dwarf::Outcome::Nothing(why) => Layouts::none(why),
    })
}

/// What the runtime's functions do with its variables in a program that has a symbol table: function, variable, and the
/// uses as `globals/witnesses.txt` writes them. What `cargo xtask offsets` makes that file of.
pub fn variable_uses<S: Source>(src: S) -> Result<Vec<(&'static str, Global, String)>, Error> {
    let elf = Elf::parse(src)?;
    let Some(table) = pclntab::locate(&elf)? else { return Err(no_go(&elf)?) };
    let info = buildinfo::read(&elf)?.unwrap_or_else(BuildInfo::unknown);
    let found = find_functions(&elf, Some(&table), &info, &Names::new(globals::symbols()), &mut Vec::new())?;
    globals::describe(&found.program(&elf, Some(&table), &info))
}

impl GoBinary {
    /// Inspects a file. See [`Self::parse`].
    pub fn open(path: &Path, wanted_functions: &[&str], wanted_layouts: &[(&str, &[&str])]) -> Result<GoBinary, Error> {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(Error::Unreadable(std::io::Error::other("not a regular file")));
        }
        Self::parse(&file, wanted_functions, wanted_layouts)
    }

    /// Inspects an executable: finds the wanted functions (those that are not in it are simply absent) and the layouts
    /// of the wanted structs.
    pub fn parse<S: Source>(
        src: S,
        wanted_functions: &[&str],
        wanted_layouts: &[(&str, &[&str])],
    ) -> Result<GoBinary, Error> {
        let mut elf = Elf::parse(src)?;
        let build_info = buildinfo::read(&elf)?;
        let table = pclntab::locate(&elf)?;
        if build_info.is_none() && table.is_none() {
            return Err(no_go(&elf)?);
        }
        let mut notes = std::mem::take(&mut elf.notes);
        let without = build_info.is_none();
        let mut build_info = build_info.unwrap_or_else(BuildInfo::unknown);
        refuse_old(elf.arch, &build_info, table.as_ref())?;

        let ours = verify::functions().chain(globals::symbols());
        let names = Names::new(wanted_functions.iter().copied().chain(ours.map(|name| -> &str { name })));
        let found = find_functions(&elf, table.as_ref(), &build_info, &names, &mut notes)?;
        let own = globals::recorded_in_runtime(&found.program(&elf, table.as_ref(), &build_info))?;
        let mut contradictions = Vec::new();
        if let Some(own) = &own {
            build_info.go_version.add_experiments(own);
        }
        match own {
            Some(own) if !build_info.go_version.is_known() => {
                notes.push(format!("no build information: took the Go version from runtime.buildVersion, {own}"));
                build_info.go_version = own;
                refuse_old(elf.arch, &build_info, table.as_ref())?;
            }
            Some(own) if !own.same_release(&build_info.go_version) => {
                contradictions
                    .push(format!("it says {}, but its runtime.buildVersion is {own}", build_info.go_version));
            }
            _ if without => notes.push("no build information: the Go version and the modules are unknown".into()),
            _ => {}
        }
        let mut this = Self {
            arch: elf.arch,
            pie: elf.pie,
            constants: elf.constants(),
            types: None,
            build_info,
            build_id: note::build_id(&elf)?,
            functions_from: found.from,
            pclntab: table.map(|t| t.vaddr),
            text_start: found.text,
            bytes_read: 0,
            notes,
            contradictions,
            functions: found.functions.clone(),
            named: found.named.clone(),
            layouts: Layouts::none("not looked for".into()),
            globals: Globals::default(),
            code: HashMap::new(),
            code_segments: elf.loads().filter(|s| s.executable()).map(|s| (s.vaddr, s.offset, s.file_size)).collect(),
        };
        this.keep_code(&elf, wanted_functions)?;
        let more = verify::contradictions(&this, table.as_ref().map(|t| &t.header));
        this.contradictions.extend(more);
        // The code has offsets in variables too.
        let doubt =
            this.contradictions.first().cloned().or_else(|| Moved::of(&this.build_info, wanted_layouts).reason());
        this.globals = globals::find(&found.program(&elf, table.as_ref(), &this.build_info), doubt.as_deref())?;
        this.types = match doubt {
            None => found.program(&elf, table.as_ref(), &this.build_info).types()?,
            Some(_) => None,
        };
        this.layouts = this.find_layouts(&elf, wanted_layouts)?;
        this.bytes_read = elf.src.bytes_read();
        this.functions.retain(|name, _| wanted_functions.contains(&name.as_str()));
        this.named.retain(|name| wanted_functions.contains(&name.as_str()));
        Ok(this)
    }

    /// A wanted function, if the program has it.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// Whether the program has a wanted function: also where it was inlined wherever it is called, so that it has no code.
    pub fn uses(&self, name: &str) -> bool {
        self.functions.contains_key(name) || self.named.iter().any(|it| it == name)
    }

    /// The wanted functions that the program has, by address.
    pub fn functions(&self) -> Vec<&Function> {
        let mut all: Vec<_> = self.functions.values().collect();
        all.sort_unstable_by_key(|f| f.addr);
        all
    }

    /// The layouts of the wanted structs.
    pub fn layouts(&self) -> &Layouts {
        &self.layouts
    }

    /// Why the layouts are not the program's own, or are missing.
    pub fn layouts_reason(&self) -> Option<&str> {
        self.layouts.reason()
    }

    /// Where a variable of the runtime is, as far as it is known for certain.
    pub fn global(&self, global: Global) -> Option<FoundGlobal> {
        self.globals.get(global)
    }

    /// Why [`Self::global`] has nothing of it.
    pub fn global_missing(&self, global: Global) -> Option<&str> {
        self.globals.missing(global)
    }

    pub(crate) fn has_any(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// Copies the code of the wanted functions and of those that checks read, so that no file stays open.
    fn keep_code<S: Source>(&mut self, elf: &Elf<S>, wanted: &[&str]) -> Result<(), Error> {
        let mut left = MAX_CODE_TOTAL;
        for function in self.functions.values() {
            let needed = wanted.contains(&function.name.as_str()) || verify::CODE.contains(&function.name.as_str());
            let Some((offset, there)) = elf.code_offset(function.addr).filter(|_| needed) else { continue };
            if function.size > MAX_CODE.min(there).min(left) {
                continue;
            }
            left -= function.size;
            let bytes = read_up_to(&elf.src, offset, usize::try_from(function.size).unwrap_or(0))?;
            self.code.insert(function.addr, bytes.into_boxed_slice());
        }
        Ok(())
    }

    fn find_layouts<S: Source>(&self, elf: &Elf<S>, wanted: &[(&str, &[&str])]) -> Result<Layouts, Error> {
        let wanted = verify::with_checked_fields(wanted);
        let wanted: Vec<(&str, &[&str])> = wanted.iter().map(|(ty, fields)| (*ty, fields.as_slice())).collect();
        let table = Table::get();
        let version = &self.build_info.go_version;
        let moved = Moved::of(&self.build_info, &wanted);
        let tabled = || {
            let mut all = table.wanted(self.arch, &self.build_info, &wanted);
            moved.withhold(&mut all);
            all
        };
        let trusted = |why: &str| match self.contradictions.first() {
            Some(lie) => Err(format!("{why}, and the recorded version is not to be trusted: {lie}")),
            None => table.covers(version).map_err(|reason| format!("{why}, and {reason}")),
        };
        let layouts = match dwarf::read(elf, &wanted)? {
            dwarf::Outcome::Found(mut types) => {
                // A type that the program does not use has no DWARF, but one that only DWARF's pruning lost has a
                // layout all the same: the table fills in, if it agrees with everything that DWARF does say.
                if trusted("").is_ok() {
                    let tabled = tabled();
                    let agrees = types.iter().all(|(ty, fields)| {
                        tabled
                            .get(ty)
                            .is_none_or(|known| fields.iter().all(|(f, at)| known.get(f).is_none_or(|k| k == at)))
                    });
                    if agrees {
                        for (ty, fields) in tabled {
                            types.entry(ty).or_insert(fields);
                        }
                    }
                }
                Layouts::new(LayoutsFrom::Dwarf, None, types)
            }
            dwarf::Outcome::Nothing(why) => match trusted(&why) {
                Ok(()) => Layouts::new(LayoutsFrom::Table, Some(why), tabled()).withholding(moved.reason()),
                Err(reason) => Layouts::none(reason),
            },
        };
        Ok(match verify::against_code(self, &layouts) {
            Ok(()) => layouts,
            Err(reason) => Layouts::none(reason),
        })
    }
}
