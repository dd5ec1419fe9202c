//! Puts the parts together: an ELF file in, a `GoBinary` out. Holds no file: what is asked later was kept.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use crate::buildinfo::{self, BuildInfo};
use crate::elf::{Arch, Elf};
use crate::error::Error;
use crate::function::{Function, FunctionsFrom, by_name};
use crate::globals::{self, FoundGlobal, Global, Globals};
use crate::layouts::experiments::Moved;
use crate::layouts::table::Table;
use crate::layouts::{Layouts, LayoutsFrom, dwarf};
use crate::names::Names;
use crate::pclntab::{self, Located};
use crate::sites::{self, Site, SiteError};
use crate::source::{Source, read_up_to};
use crate::symtab::{Object, Symbols};
use crate::{loads, note, symtab, verify};

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

    /// The code of a function, with the padding behind it where its size includes that.
    pub fn code(&self, function: &Function) -> Result<&[u8], SiteError> {
        self.code.get(&function.addr).map(AsRef::as_ref).ok_or_else(|| SiteError::NoCode(function.name.clone()))
    }

    /// The start of a function, past its stack check: it fires once a call, with the argument registers whole.
    pub fn entry_site(&self, function: &Function) -> Result<Site, SiteError> {
        let found = sites::entry(self.arch, self.code(function)?)?;
        self.site(function, found)
    }

    /// The branch of a function's stack check, where the check is of the usual form: `jbe` (amd64), `b.ls` (arm64). Every
    /// kernel emulates it, on amd64 without the write to the stack that a push takes. It is passed at each call with the
    /// argument registers whole, but also where the stack must grow first or the goroutine is to be preempted: the branch
    /// is then taken, which the flags tell at the hit, and the call comes by again from the function's first byte.
    pub fn check_site(&self, function: &Function) -> Option<Site> {
        let found = sites::check(self.arch, self.code(function).ok()?)?;
        self.site(function, found).ok()
    }

    /// Every RET of a function. An error when there may be other ways out, which nothing would then see.
    pub fn return_sites(&self, function: &Function) -> Result<Vec<Site>, SiteError> {
        let found = sites::returns(self.arch, self.code(function)?)?;
        found.into_iter().map(|found| self.site(function, found)).collect()
    }

    /// The branch behind the one call through a pointer in a function whose error is looked at next, as behind `rt.RoundTrip(req)`:
    /// `jne` (amd64), `cbnz` (arm64), which every kernel emulates. Each return of the callee passes it once, with the first result
    /// and the error's type still in the first two registers. An error where there is not exactly one such call.
    pub fn after_call_site(&self, function: &Function) -> Result<Site, SiteError> {
        let found = sites::after_call(self.arch, self.code(function)?)?;
        self.site(function, found)
    }

    /// Whether a wanted function calls another directly, by its address; none where its code was not kept, or the two are so far
    /// apart that on arm64 the linker may have put another jump in between (cmd/link/internal/arm64, `trampoline`).
    pub fn calls(&self, caller: &Function, callee: &Function) -> Option<bool> {
        const NEAR: u64 = 100 << 20;
        if self.arch == Arch::Arm64 && caller.addr.abs_diff(callee.addr) > NEAR {
            return None;
        }
        let code = self.code(caller).ok()?;
        let distance = callee.addr.wrapping_sub(caller.addr).cast_signed();
        Some(sites::calls(self.arch, code).iter().any(|(to, _)| *to == distance))
    }

    /// The one call of another function in a function: `call` (amd64), `bl` (arm64), which every kernel emulates or simulates, with the
    /// callee's arguments in their registers. An error where there is not exactly one.
    pub fn call_site(&self, caller: &Function, callee: &Function) -> Result<Site, SiteError> {
        let distance = callee.addr.wrapping_sub(caller.addr).cast_signed();
        let calls = sites::calls(self.arch, self.code(caller)?);
        let mut found: Vec<_> = calls.into_iter().filter(|(to, _)| *to == distance).map(|(_, found)| found).collect();
        match (found.len(), found.pop()) {
            (1, Some(call)) => self.site(caller, call),
            (count, _) => Err(SiteError::NotOneCall(count)),
        }
    }

    /// The offset of the first field of 4 bytes that a wanted function reads of a struct that it has a pointer to; none where it reads
    /// none, or its code was not kept.
    pub fn first_field_read(&self, function: &Function) -> Option<u32> {
        loads::first_of_4_bytes(self.arch, self.code(function).ok()?)
    }

    /// The file offset that uprobes on a link-time code address are attached by.
    pub fn file_offset(&self, vaddr: u64) -> Option<u64> {
        self.code_segments.iter().find_map(|&(start, offset, size)| {
            let inside = vaddr.checked_sub(start).filter(|&inside| inside < size)?;
            offset.checked_add(inside)
        })
    }

    fn site(&self, function: &Function, found: sites::Found) -> Result<Site, SiteError> {
        let vaddr = function.addr.saturating_add(u64::from(found.offset));
        let file_offset = self.file_offset(vaddr).ok_or_else(|| SiteError::NoCode(function.name.clone()))?;
        Ok(Site {
            vaddr,
            file_offset,
            function_offset: found.offset,
            instruction: found.text,
            cost: sites::cost::KernelFeatures::oldest(self.arch).cost(found.kind),
            kind: found.kind,
        })
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

struct FoundFunctions {
    functions: HashMap<String, Function>,
    from: FunctionsFrom,
    text: Option<u64>,
    /// Variables by the symbol table.
    objects: Vec<Object>,
    /// Names that the function table has.
    named: Vec<String>,
}

impl FoundFunctions {
    fn program<'p, S: Source>(
        &'p self,
        elf: &'p Elf<S>,
        table: Option<&'p Located>,
        info: &'p BuildInfo,
    ) -> globals::Program<'p, S> {
        globals::Program { elf, table, info, objects: &self.objects, functions: &self.functions }
    }
}

fn find_functions<S: Source>(
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

/// What to say of a file without a trace of Go.
fn no_go<S: Source>(elf: &Elf<S>) -> Result<Error, Error> {
    // UPX puts its magic right behind the program headers, and drops the section headers.
    let head = read_up_to(&elf.src, 0, 4096)?;
    let tail = read_up_to(&elf.src, elf.src.len().saturating_sub(512), 512)?;
    let upx = |bytes: &[u8]| memchr::memmem::find(bytes, b"UPX!").is_some();
    if elf.sections.is_empty() && (upx(&head) || upx(&tail)) {
        return Ok(Error::PackedWithUpx);
    }
    Ok(match pclntab::foreign_magic(elf)? {
        Some(magic) => Error::UnknownPclntab(magic),
        None => Error::NotGo,
    })
}

fn refuse_old(arch: Arch, info: &BuildInfo, table: Option<&Located>) -> Result<(), Error> {
    let (minor, needed) = match arch {
        Arch::Amd64 => (17, "1.17"),
        Arch::Arm64 => (18, "1.18"),
    };
    let version = &info.go_version;
    let by_version = version.is_known() && !version.at_least(1, minor);
    let by_table = !version.is_known() && table.is_some_and(|t| t.header.magic.minors().1 < minor);
    if by_version || by_table {
        return Err(Error::TooOld { found: version.clone(), needed });
    }
    if version.is_without_registers() { Err(Error::NoRegisters(version.clone())) } else { Ok(()) }
}
