//! Programs that nobody here wrote, as their distributors ship them, stripped: Debian's Go programs and npm's esbuild.
//! Each is inspected in full. Fetched by xtask, once; fails when they cannot be had, and `cargo test` alone leaves it out.
//! Prints a table; times are for people, not for assertions.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use gobinary::{FunctionsFrom, Global, GlobalSource, GoBinary, LayoutsFrom};

/// Those of `xtask::foreign`.
const PROGRAMS: [&str; 6] = ["prometheus", "node-exporter", "etcd", "caddy", "hugo", NPM];
/// The one that npm ships; the others are Debian's.
const NPM: &str = "esbuild";

/// What a server is measured by: what `exporter/instruments` cannot do without.
const SERVING: [&str; 2] = ["net/http.serverHandler.ServeHTTP", "net/http.(*response).finishRequest"];
const OTHERS: [&str; 7] = [
    "net/http.(*response).Hijack",
    "net/http.(*http2responseWriter).handlerDone",
    "golang.org/x/net/http2.(*responseWriter).handlerDone",
    "runtime.gopanic",
    "runtime.gopark",
    "runtime.casgstatus",
    "runtime.execute",
];
/// What the runtime's own counters are read from.
const VARIABLES: [Global; 17] = [
    Global::Sched,
    Global::Allgs,
    Global::Allglen,
    Global::Allgptr,
    Global::Allm,
    Global::Allp,
    Global::Gomaxprocs,
    Global::Memstats,
    Global::GcController,
    Global::Work,
    Global::Mheap,
    Global::GcCpuLimiter,
    Global::StartingStackSize,
    Global::BuildVersion,
    Global::ClassToSize,
    Global::WaitReasonStrings,
    Global::FirstModuledata,
];
const LAYOUTS: [(&str, &[&str]); 5] = [
    ("net/http.response", &["req", "status"]),
    ("net/http.Request", &["Method", "URL"]),
    ("net/url.URL", &["Path"]),
    ("net/http.http2responseWriterState", &["req", "status"]),
    ("runtime.g", &["goid", "atomicstatus"]),
];

#[test]
fn foreign_programs_are_read_in_full() {
    let wanted = [SERVING.as_slice(), &OTHERS].concat();
    let mut table = format!(
        "{:<26} {:>7} {:<10} {:>8} {:>9} {:<8} {:>5} {:>5} {:>8} {:>9} {:>9}\n",
        "program", "MiB", "Go", "modules", "functions", "layouts", "sites", "RETs", "ms", "KiB more", "MiB read"
    );
    // The layout table is parsed at first use, once for all.
    let first = fetched("hugo");
    GoBinary::open(&first, &wanted, &LAYOUTS).unwrap();
    for (name, path) in &PROGRAMS.map(|name| (name, fetched(name))) {
        let bytes = fs::metadata(path).unwrap().len();
        let before = reset_peak();
        let start = Instant::now();
        let go = GoBinary::open(path, &wanted, &LAYOUTS).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (mut sites, mut returns) = (0, 0);
        for function in go.functions() {
            // Its code is where its address says: nothing here starts with padding or zeros.
            let site = go.entry_site(function).unwrap_or_else(|error| panic!("{name}: {}: {error}", function.name));
            assert_eq!(site.vaddr, function.addr + u64::from(site.function_offset), "{name}");
            sites += 1;
            returns += go.return_sites(function).map_or(0, |sites| sites.len());
        }
        let (took, grown) = (start.elapsed(), peak_kib().saturating_sub(before));
        let info = &go.build_info;
        writeln!(
            table,
            "{name:<26} {:>7.1} {:<10} {:>8} {:>9} {:<8} {sites:>5} {returns:>5} {:>8.1} {grown:>9} {:>9.1}",
            bytes as f64 / 1_048_576.0,
            info.go_version.to_string().replace("an unknown Go", "unknown"),
            info.deps.len(),
            go.functions().len(),
            go.layouts().source().as_str(),
            took.as_secs_f64() * 1e3,
            go.bytes_read as f64 / 1_048_576.0,
        )
        .unwrap();
        assert!(grown < 32 * 1024, "{name}: inspecting it took {grown} KiB");
        assert!(go.bytes_read < bytes / 3, "{name}: {} of {bytes} bytes were read", go.bytes_read);
        assert_eq!(go.functions_from, FunctionsFrom::Gopclntab, "{name} is not stripped");
        assert!(go.contradictions.is_empty(), "{name}: {:?}", go.contradictions);
        for function in SERVING {
            assert!(go.function(function).is_some(), "{name}: {function} was not found");
        }
        let finish = go.function(SERVING[1]).unwrap();
        assert_eq!(go.return_sites(finish).map(|sites| sites.len()), Ok(1), "{name}: finishRequest");
        if *name == NPM {
            // Its build leaves the build information out; the runtime has its version all the same.
            assert!(info.settings.is_empty() && info.path.is_empty(), "{name}: {:?}", info.settings);
            assert!(go.notes.iter().any(|note| note.contains("runtime.buildVersion")), "{name}: {:?}", go.notes);
        }
        // Debian builds with GO111MODULE=off: no module is recorded, by `go version -m` neither.
        assert!(info.go_version.at_least(1, 19), "{name}: {}", info.go_version);
        assert!(info.main.is_none() && info.deps.is_empty(), "{name}: {:?}", info.main);
        assert!(*name == NPM || info.setting("GOOS") == Some("linux"), "{name}: {:?}", info.settings);
        assert_eq!(go.layouts().source(), LayoutsFrom::Table, "{name}: {:?}", go.layouts_reason());
        for global in VARIABLES {
            let found = go.global(global).unwrap_or_else(|| panic!("{name}: {:?}", go.global_missing(global)));
            assert_ne!(found.from, GlobalSource::Symtab, "{name}: {global}");
        }
        for (ty, fields) in LAYOUTS {
            for field in fields {
                assert!(go.layouts().offset(ty, field).is_some(), "{name}: {ty}.{field}");
            }
        }
    }
    println!("{table}");
}

fn fetched(name: &str) -> PathBuf {
    xtask::foreign::program(name).unwrap_or_else(|error| panic!("{name} cannot be had: {error:#}"))
}

fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn peak_kib() -> u64 {
    status("VmHWM")
}

/// Sets the peak back to what is resident now (proc(5), `clear_refs`), and returns it.
fn reset_peak() -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    peak_kib()
}
