//! Go releases x ways of building x both architectures: the functions, layouts and runtime variables that gobinary finds in a
//! stripped program are where its unstripped twin says. The twin is the same link: the stripped copies are made here by
//! taking headers away, so that every address is comparable. Symbols are read by another library than gobinary's own
//! reader.
//!
//! `short` reads a few releases of the sample service that the end-to-end tests run. `full` takes every release of
//! `xtask::go::RELEASES` in every way, in the better part of an hour the first time; for the ways with cgo it needs C
//! compilers for both architectures (Debian's gcc-aarch64-linux-gnu). Both fetch the Go toolchains that the machine lacks,
//! and fail when they cannot be had; `cargo test` alone leaves them out. Executables are kept in `target/go/bin`.

mod twin;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use gobinary::{Arch, FunctionsFrom, Global, GlobalSource, GoBinary, LayoutsFrom};
use object::{Object, ObjectSection, ObjectSymbol};
use xtask::go::{self, Service, Toolchain, Variant};

/// The minor releases of `short`: the oldest, the first with patterns in requests, and the newest.
const SHORT: [u32; 3] = [17, 22, 27];

/// A way of building of `full`: name, what CGO_ENABLED is set to (None leaves it to Go, as for the sample services), arguments.
type Way = (&'static str, Option<&'static str>, &'static [&'static str]);

const WAYS: [Way; 8] = [
    ("default", None, &[]),
    ("-s -w", None, &["-ldflags=-s -w"]),
    ("pie", None, &["-buildmode=pie"]),
    ("trimpath", None, &["-trimpath"]),
    ("static", Some("0"), &["-tags=netgo,osusergo", "-ldflags=-extldflags=-static"]),
    ("cgo", Some("1"), &["-ldflags=-linkmode=external"]),
    ("cgo pie", Some("1"), &["-buildmode=pie", "-ldflags=-linkmode=external"]),
    ("race", Some("1"), &["-race"]),
];

/// Not all of them are in every release: what the twin's symbol table lacks must not be found either.
const FUNCTIONS: [&str; 24] = [
    "net/http.serverHandler.ServeHTTP",
    "net/http.(*response).finishRequest",
    "net/http.(*response).WriteHeader",
    "net/http.(*conn).serve",
    "net/http.(*conn).setState",
    "net/http.(*conn).hijackLocked",
    "net/http.(*ServeMux).ServeHTTP",
    "net/http.(*http2responseWriter).handlerDone",
    "net/http/internal/http2.(*responseWriter).handlerDone",
    "net/http.initALPNRequest.ServeHTTP",
    "runtime.gopark",
    "runtime.ready",
    "runtime.casgstatus",
    "runtime.execute",
    "runtime.newproc1",
    "runtime.goexit0",
    "runtime.gdestroy",
    "runtime.park_m",
    "runtime.schedtrace",
    "runtime.gcMarkTermination",
    "runtime.allgadd",
    "runtime.startTheWorldWithSema",
    "runtime.gcStart",
    "runtime.selectgo",
];

const LAYOUTS: &[(&str, &[&str])] = &[
    ("net/http.response", &["conn", "req", "status", "wroteHeader", "written"]),
    ("net/http.conn", &["curReq", "hijackedv"]),
    ("net/http.Request", &["Method", "URL", "Pattern", "pat", "ctx"]),
    ("net/url.URL", &["Path"]),
    ("net/http.pattern", &["str"]),
    ("net/http.http2responseWriter", &["rws"]),
    ("net/http.http2responseWriterState", &["req", "status", "stream"]),
    ("net/http/internal/http2.responseWriter", &["rws"]),
    ("net/http/internal/http2.responseWriterState", &["req", "status"]),
    ("net/http/internal/http2.ServerRequest", &["Method"]),
    ("runtime.g", &["atomicstatus", "goid", "m", "waitreason", "sched.sp", "sched.pc", "sched.bp", "waitsince"]),
    ("runtime.m", &["curg", "procid", "p"]),
    ("runtime.p", &["id", "status", "runnext", "schedtick"]),
    ("runtime.schedt", &["timeToRun", "totalMutexWaitTime", "ngsys", "gcwaiting", "stwTotalTimeGC"]),
    ("runtime.mstats", &["numgc", "pause_total_ns", "pause_ns", "last_gc_unix"]),
    ("runtime.gcControllerState", &["heapLive", "gcPercentHeapGoal", "totalAlloc"]),
    ("runtime.workType", &["cycles", "tEnd", "heap2", "cpuStats"]),
    ("runtime.mheap", &["sweepgen", "pagesInUse"]),
    ("runtime.moduledata", &["text", "etext", "data", "bss", "next"]),
    ("runtime._func", &["nameOff"]),
    ("runtime.sudog", &["g", "releasetime"]),
];

/// A program to read.
struct Cell<'c> {
    /// The version of the Go that built it.
    go: &'c str,
    arch: &'c str,
    way: &'c str,
    /// The main module's path.
    module: &'c str,
    path: PathBuf,
    /// For one that was built without symbols: the same program built with them.
    twin: Option<PathBuf>,
}

#[test]
fn short() {
    let mut table = Table::default();
    for minor in SHORT {
        let toolchain = toolchain(minor);
        let service = |variant, arch| {
            let service = Service { name: "matrix".to_owned(), go: format!("1.{minor}"), variant };
            go::build_for(&service, arch).unwrap_or_else(|error| panic!("matrix 1.{minor} does not build: {error:#}"))
        };
        let newest = minor == SHORT[SHORT.len() - 1];
        let cell =
            |way, arch, path, twin| Cell { go: &toolchain.version, arch, way, module: "sample/matrix", path, twin };
        let host = twin::host();
        // Named without an architecture, they are the very binaries that the end-to-end tests build.
        let whole = service(Variant::Default, None);
        table.add(&cell("default", host, whole.clone(), None));
        table.add(&cell("-s -w", host, service(Variant::Strip, None), Some(whole)));
        if newest {
            table.add(&cell("pie", host, service(Variant::Pie, None), None));
            let other = if host == "amd64" { "arm64" } else { "amd64" };
            table.add(&cell("default", other, service(Variant::Default, Some(other)), None));
        }
    }
    table.finish("short", SHORT.len() * 2 + 2);
}

#[test]
fn full() {
    let mut table = Table::default();
    for release in go::RELEASES {
        let toolchain = toolchain(release.minor());
        for arch in ["amd64", "arm64"] {
            let build = |way| twin::build(&toolchain, arch, way);
            let whole = build(WAYS[0]);
            for way in WAYS {
                let twin = (way.0 == "-s -w").then(|| whole.clone());
                let path = build(way);
                table.add(&Cell { go: &toolchain.version, arch, way: way.0, module: twin::MODULE, path, twin });
            }
        }
    }
    table.finish("full", go::RELEASES.len() * 2 * WAYS.len());
}

/// The machine's Go stands for its minor version, as for the sample services.
fn toolchain(minor: u32) -> Toolchain {
    go::toolchain(&format!("1.{minor}"))
        .unwrap_or_else(|error| panic!("the matrix needs Go 1.{minor}; is the module proxy reachable? {error:#}"))
}

/// What came of each cell.
#[derive(Default)]
struct Table {
    rows: Vec<(String, String)>,
    cells: usize,
    failures: Vec<String>,
}

impl Table {
    /// Reads a program.
    fn add(&mut self, cell: &Cell) {
        // Go 1.17 has no register ABI on arm64.
        let refused = cell.arch == "arm64" && cell.go.starts_with("1.17.");
        let checked = if refused { check_refused(&cell.path, cell.go) } else { check(cell) };
        let row = format!("go{:8} {}", cell.go, cell.arch);
        let said = checked.unwrap_or_else(|why| {
            self.failures.push(format!("{row} {}: {why}", cell.way));
            "WRONG".into()
        });
        // A whole run takes long: with --nocapture it says where it is.
        println!("{row} {}: {said}", cell.way);
        if self.rows.iter().all(|(name, _)| *name != row) {
            self.rows.push((row.clone(), String::new()));
        }
        for (_, cells) in self.rows.iter_mut().filter(|(name, _)| *name == row) {
            let _ = write!(cells, "  {} {said}", cell.way);
        }
        self.cells += 1;
    }

    /// Prints the table, leaves a copy in `target/gobinary-NAME.txt`, and fails if a cell is wrong or missing.
    fn finish(self, name: &str, cells: usize) {
        let mut table = String::from(
            "functions at the twin's addresses / offsets equal to the twin's DWARF / variables at its symbols\n",
        );
        for (row, cells) in &self.rows {
            let _ = writeln!(table, "{row}{cells}");
        }
        println!("{table}{} cells, {} wrong", self.cells, self.failures.len());
        let _ = fs::write(xtask::util::target().join(format!("gobinary-{name}.txt")), &table);
        assert!(self.failures.is_empty(), "\n{}", self.failures.join("\n"));
        assert_eq!(self.cells, cells);
    }
}

/// A release whose functions take their arguments on the stack is refused by name, however it was built.
fn check_refused(path: &Path, go: &str) -> Result<String, String> {
    match GoBinary::open(path, &FUNCTIONS, LAYOUTS) {
        Err(error @ gobinary::Error::TooOld { .. }) if error.to_string().contains(&format!("built with go{go}:")) => {
            Ok("refused".into())
        }
        Err(error) => Err(format!("refused, but for {error}")),
        Ok(_) => Err("inspected, though its functions take their arguments on the stack".into()),
    }
}

fn check(cell: &Cell) -> Result<String, String> {
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let bytes = read(&cell.path)?;
    let twin = cell.twin.as_deref().map_or_else(|| Ok(bytes.clone()), read)?;
    let symbols = symbols(&twin);
    let whole = GoBinary::parse(&twin, &FUNCTIONS, LAYOUTS).map_err(|e| format!("unstripped: {e}"))?;
    if whole.layouts().source() != LayoutsFrom::Dwarf || whole.functions_from != FunctionsFrom::SymbolTable {
        return Err(format!("unstripped, but {:?} {:?}", whole.layouts_reason(), whole.functions_from));
    }
    let mut said = String::new();
    let copies: &[(&str, Vec<u8>)] = if cell.twin.is_some() {
        &[("as built", bytes)]
    } else {
        &[("unstripped", bytes.clone()), ("stripped", strip(&bytes)), ("without sections", sstrip(&bytes))]
    };
    for (kind, copy) in copies {
        let found = GoBinary::parse(copy, &FUNCTIONS, LAYOUTS).map_err(|e| format!("{kind}: {e}"))?;
        let unstripped = *kind == "unstripped";
        let (functions, offsets) =
            compare(&found, &whole, &symbols, cell, unstripped).map_err(|e| format!("{kind}: {e}"))?;
        compare_types(&found, &symbols, cell).map_err(|e| format!("{kind}: {e}"))?;
        let variables = compare_variables(&found, &symbols, unstripped, cell).map_err(|e| format!("{kind}: {e}"))?;
        said = format!("{functions}/{offsets}/{variables}");
    }
    Ok(said)
}

fn compare(
    found: &GoBinary,
    twin: &GoBinary,
    symbols: &BTreeMap<String, Vec<(u64, u64)>>,
    cell: &Cell,
    unstripped: bool,
) -> Result<(usize, usize), String> {
    if found.build_info.go_version.to_string() != format!("go{}", cell.go) {
        return Err(format!("version {}", found.build_info.go_version));
    }
    if found.build_info.main.as_ref().is_none_or(|m| m.path != cell.module) {
        return Err(format!("main module {:?}", found.build_info.main));
    }
    if !found.contradictions.is_empty() {
        return Err(format!("honest, but {:?}", found.contradictions));
    }
    if !unstripped
        && (found.functions_from != FunctionsFrom::Gopclntab || found.layouts().source() != LayoutsFrom::Table)
    {
        return Err(format!("{:?}, {:?}", found.functions_from, found.layouts_reason()));
    }
    let (mut functions, mut offsets) = (0, 0);
    for name in FUNCTIONS {
        let known = symbols.get(name).map(|all| all.iter().max_by_key(|(_, size)| *size).unwrap());
        match (found.function(name), known) {
            (Some(function), Some((addr, _))) if function.addr == *addr => functions += 1,
            (None, None) => continue,
            (function, known) => return Err(format!("{name}: {function:x?}, the twin has {known:x?}")),
        }
        let function = found.function(name).unwrap();
        let site = found.entry_site(function).map_err(|e| format!("{name}: {e}"))?;
        let framed = match (found.arch, found.build_info.go_version.at_least(1, 21)) {
            (Arch::Amd64, true) => site.instruction == "push %rbp",
            (Arch::Amd64, false) => site.instruction.starts_with("sub $") || site.instruction.starts_with("add $"),
            (Arch::Arm64, _) => ["str x30, [sp", "stp x29, x30", "sub x20, sp", "sub x27, sp"]
                .iter()
                .any(|start| site.instruction.starts_with(start)),
        };
        if !framed {
            return Err(format!("{name}: entry at +{:#x} {}", site.function_offset, site.instruction));
        }
        match found.return_sites(function) {
            Ok(_) | Err(gobinary::SiteError::NoReturn) => {}
            Err(error) => return Err(format!("{name}: returns: {error}")),
        }
    }
    // Types that the twin's DWARF has: the table may know more.
    for (ty, fields) in LAYOUTS.iter().filter(|(ty, _)| twin.layouts().has(ty)) {
        for field in *fields {
            let (here, there) = (found.layouts().offset(ty, field), twin.layouts().offset(ty, field));
            if here != there {
                return Err(format!("{ty}.{field} at {here:?}, the twin has it at {there:?}"));
            }
            offsets += usize::from(here.is_some());
        }
    }
    if functions < 18 || offsets < 40 {
        return Err(format!("only {functions} functions and {offsets} offsets"));
    }
    Ok((functions, offsets))
}

/// Where type descriptors begin and end.
const TYPES: [&str; 2] = ["runtime.types", "runtime.etypes"];

/// Type descriptors are where the twin's symbols say.
fn compare_types(found: &GoBinary, symbols: &BTreeMap<String, Vec<(u64, u64)>>, cell: &Cell) -> Result<(), String> {
    let of = |name: &str| symbols.get(name).map(|all| all[0].0);
    let known = of(TYPES[0]).zip(of(TYPES[1])).map(|(from, to)| (from, to - from));
    // Both were built, not copied, see `compare_variables`.
    let comparable = cell.twin.is_none();
    match (found.types, known) {
        (Some(here), Some(there)) if here == there || !comparable => Ok(()),
        (here, there) => Err(format!("types at {here:x?}, the twin has them at {there:x?}")),
    }
}

/// The runtime's variables are where the twin's symbols say, and all that the release has are found, but in position-independent
/// code for arm64 before Go 1.21.
fn compare_variables(
    found: &GoBinary,
    symbols: &BTreeMap<String, Vec<(u64, u64)>>,
    unstripped: bool,
    cell: &Cell,
) -> Result<usize, String> {
    let old = ["1.18.", "1.19.", "1.20."].iter().any(|release| cell.go.starts_with(release));
    let old_arm64_pie = old && found.arch == Arch::Arm64 && cell.way.ends_with("pie");
    let mut equal = 0;
    for &global in Global::ALL {
        let known = global.names().iter().find_map(|name| symbols.get(*name)).map(|all| all[0].0);
        match (found.global(global), known) {
            // Both were built, not copied: a few bytes of build information more or less move everything behind it.
            (Some(here), Some(_)) if cell.twin.is_some() && here.from != GlobalSource::Symtab => {}
            (Some(here), Some(address)) if here.address == address => {
                if unstripped != (here.from == GlobalSource::Symtab) {
                    return Err(format!("{global} by {:?}", here.from));
                }
            }
            (None, None) => continue,
            // One function alone uses it in programs that do not read their own metrics.
            (None, Some(_)) if global == Global::Ncgocall => continue,
            // Their code is not what was measured: fewer are found, and none wrongly.
            (None, Some(_)) if old_arm64_pie => continue,
            (here, known) => {
                let why = found.global_missing(global).unwrap_or_default();
                return Err(format!("{global}: {here:x?}, the twin has {known:x?} {why}"));
            }
        }
        equal += 1;
    }
    let least = if old_arm64_pie { 16 } else { 20 };
    if equal < least { Err(format!("only {equal} variables")) } else { Ok(equal) }
}

/// Symbols of functions and variables by name.
fn symbols(bytes: &[u8]) -> BTreeMap<String, Vec<(u64, u64)>> {
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(bytes).unwrap();
    let mut all: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    let variables: Vec<&str> = Global::ALL.iter().flat_map(|global| global.names()).copied().collect();
    for symbol in file.symbols() {
        let wanted = match symbol.kind() {
            object::SymbolKind::Text if symbol.size() > 0 => &FUNCTIONS[..],
            object::SymbolKind::Data if symbol.size() > 0 => &variables,
            // They mark places.
            _ if symbol.size() == 0 => &TYPES,
            _ => continue,
        };
        if let Ok(name) = symbol.name()
            && wanted.contains(&name)
        {
            all.entry(name.to_owned()).or_default().push((symbol.address(), symbol.size()));
        }
    }
    all
}

/// Takes the symbol table and debug information away, as strip does, without moving anything.
fn strip(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(bytes).unwrap();
    let table = u64::from_le_bytes(bytes[40..48].try_into().unwrap()) as usize;
    for section in file.sections() {
        let name = section.name().unwrap();
        if name.starts_with(".debug") || name.starts_with(".zdebug") || name == ".symtab" || name == ".strtab" {
            let header = table + section.index().0 * 64;
            out[header..header + 64].fill(0);
            if let Some((offset, size)) = section.file_range() {
                out[offset as usize..(offset + size) as usize].fill(0);
            }
        }
    }
    out
}

/// Takes the section headers away, and everything of the file that is not loaded with them.
fn sstrip(bytes: &[u8]) -> Vec<u8> {
    let mut out = strip(bytes);
    out[40..48].fill(0);
    out[58..64].fill(0);
    out
}
