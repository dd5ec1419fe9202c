//! `cargo xtask offsets [--check | --functions | --experiments]`: builds small Go programs with real toolchains, reads their DWARF, symbols
//! and code with gobinary, and writes what stripped programs are measured by: the layout table, the release fingerprints
//! and the uses of the runtime's variables of `exporter/gobinary/src`. `--functions` writes the code samples of gobinary's tests,
//! `--experiments` the list of GOEXPERIMENTs that the tables hold for (an hour). `--check` only compares.

mod experiments;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use gobinary::{GoBinary, LayoutsFrom, SIZE, dwarf_layouts, functions_with_prefix, variable_uses};

use types::{LIBRARIES, STANDARD};

/// The first and the last release of each minor version that has a register ABI (the last so that backports are in it),
/// and those around a layout change within a minor.
const TOOLCHAINS: &[&str] = &[
    "1.17.1", "1.17.13", "1.18", "1.18.10", "1.19.2", "1.19.13", "1.20", "1.20.14", "1.21.0", "1.21.13", "1.22.0",
    "1.22.12", "1.23.0", "1.23.9", "1.23.10", "1.23.12", "1.24.0", "1.24.11", "1.24.13", "1.25.0", "1.25.5", "1.25.14",
    "1.26.0", "1.26.8", "1.26.9", "1.26.10", "1.26.11", "1.27.0", "1.27.3", "1.27.4",
];
/// The compiler of the library table: a struct of pointers and integers is laid out alike by all.
const LIBRARY_TOOLCHAIN: &str = "1.26.8";

const PROGRAM: &str = "package main\n\nimport (\n\t\"database/sql\"\n\t\"fmt\"\n\t\"net/http\"\n)\n\nfunc main() {\n\
    \tdb, err := sql.Open(\"none\", \"\")\n\thttp.HandleFunc(\"/\", func(w http.ResponseWriter, r *http.Request) {\n\
    \t\tfmt.Fprintln(w, http.StatusText(r.ProtoMajor), db.Stats(), db.Ping(), err)\n\t})\n\
    \tresp, err := http.Get(\"http://127.0.0.1\")\n\tfmt.Println(resp, err)\n\
    \tfmt.Println(http.ListenAndServeTLS(\":0\", \"\", \"\", nil))\n}\n";

/// Functions whose code gobinary's tests keep, whole; of larger ones the first bytes.
const SAMPLES: [&str; 9] = [
    "net/http.serverHandler.ServeHTTP",
    "net/http.(*response).finishRequest",
    "net/http.(*conn).serve",
    "net/http.StatusText",
    "runtime.casgstatus",
    "runtime.gopark",
    "runtime.mcall",
    "runtime.chanrecv1",
    "runtime.selectgo",
];
const SAMPLE_WHOLE: usize = 1536;
const SAMPLE_HEAD: usize = 160;
/// Fingerprints kept for each release and kind.
const MAX_FINGERPRINTS: usize = 5;

/// Values by field, by type, by what the row is keyed by.
type Measured = BTreeMap<String, BTreeMap<String, Vec<Option<u32>>>>;

/// `26.8` of `1.26.8`, as rows are keyed; `18.0` of `1.18`.
fn key(go: &str) -> String {
    let mut numbers = go.split('.').skip(1);
    format!("{}.{}", numbers.next().unwrap_or("0"), numbers.next().unwrap_or("0"))
}

fn minor(go: &str) -> &str {
    go.split('.').nth(1).unwrap_or_default()
}

/// Go 1.17 has no register ABI on arm64.
fn architectures(go: &str) -> &'static [&'static str] {
    if minor(go) == "17" { &["amd64"] } else { &["amd64", "arm64"] }
}

/// The last release of each minor version.
fn last_releases() -> impl Iterator<Item = &'static str> {
    TOOLCHAINS.iter().zip(TOOLCHAINS.iter().skip(1).chain(&[""])).filter(|(a, b)| minor(a) != minor(b)).map(|(a, _)| *a)
}

/// Runs the command.
pub fn run(args: &[String]) -> Result<()> {
    let (mut check, mut functions, mut experiments) = (false, false, false);
    for arg in args {
        match arg.as_str() {
            "--check" => check = true,
            "--functions" => functions = true,
            "--experiments" => experiments = true,
            other => bail!("unknown argument {other}: cargo xtask offsets [--check | --functions | --experiments]"),
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace above xtask")?;
    let crate_dir = root.join("exporter/gobinary");
    let work = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("offsets");
    let builds = Builds { work };
    if functions {
        return builds.write_samples(&crate_dir.join("tests/data/functions"));
    }
    if experiments {
        let path = crate_dir.join("src/layouts/experiments.txt");
        return fs::write(&path, experiments::list(&builds)?).with_context(|| format!("writing {}", path.display()));
    }
    let outputs = [
        ("src/layouts/table.txt", builds.table()?),
        ("src/fingerprints.txt", builds.fingerprints()?),
        ("src/globals/witnesses.txt", builds.witnesses()?),
    ];
    for (name, text) in outputs {
        let path = crate_dir.join(name);
        if !check {
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            println!("wrote exporter/gobinary/{name}");
        } else if fs::read_to_string(&path).unwrap_or_default() == text {
            println!("exporter/gobinary/{name} is what the toolchains say");
        } else {
            bail!("exporter/gobinary/{name} is not what the toolchains say: run cargo xtask offsets");
        }
    }
    Ok(())
}

struct Builds {
    work: PathBuf,
}

impl Builds {
    /// Builds `source` and returns the executable; built ones are kept. `module` is a library to build against.
    fn program(&self, go: &str, arch: &str, source: &str, module: Option<(&str, &str)>) -> Result<PathBuf> {
        let key = module.map_or(String::new(), |(path, version)| format!("-{}-{version}", path.replace('/', "_")));
        let dir = self.work.join(format!("go{go}-{arch}{key}"));
        let out = dir.join("program");
        let main = dir.join("main.go");
        if out.is_file() && fs::read_to_string(&main).is_ok_and(|old| old == source) {
            return Ok(out);
        }
        fs::create_dir_all(&dir)?;
        fs::write(&main, source)?;
        let lines = module.map_or(String::new(), |(path, version)| format!("\nrequire {path} {version}\n"));
        fs::write(dir.join("go.mod"), format!("module sample\n\ngo 1.17\n{lines}"))?;
        println!("building with go{go} for {arch} {}", module.map_or("", |(_, version)| version));
        // The checkout around it is none of the program's business; 1.17 does not look and does not know the flag.
        let vcs: &[&str] = if go.starts_with("1.17") { &[] } else { &["-buildvcs=false"] };
        let build = [&["build", "-p", "2"], vcs, &["-o", "program", "."]].concat();
        let mut steps: Vec<&[&str]> = vec![&build];
        if module.is_some() {
            steps.insert(0, &["mod", "tidy"]);
        }
        for step in steps {
            let status = go_command(go, arch).current_dir(&dir).args(step).output().context("running go")?;
            if !status.status.success() {
                let _ = fs::remove_file(&main);
                bail!("go{go} {} for {arch} failed:\n{}", step.join(" "), String::from_utf8_lossy(&status.stderr));
            }
        }
        Ok(out)
    }

    fn table(&self) -> Result<String> {
        let keys: Vec<_> = TOOLCHAINS.iter().map(|go| key(go)).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        // Where arm64 begins.
        let first = TOOLCHAINS.iter().take_while(|go| architectures(go).len() == 1).count();
        let mut text = format!(
            "# Struct layouts by Go release and module version. Generated by `cargo xtask offsets`; do not edit.\n\
             # Read from the DWARF of programs built for linux/amd64 and linux/arm64 (arm64 from 1.18 on; lines FIELD@arm64\n\
             # where it differs) by the toolchains of the `go` line, modules by go{LIBRARY_TOOLCHAIN}. FIELD N=V: from Go 1.N, or that\n\
             # version of the module, on the offset is V; `-`: there is no such field.\n\ngo {}\n",
            keys.iter().map(|key| format!("1.{key}")).collect::<Vec<_>>().join(" ")
        );
        let mut by_arch = Vec::new();
        for arch in ["amd64", "arm64"] {
            let mut measured = Measured::new();
            for go in TOOLCHAINS {
                let built = architectures(go).contains(&arch);
                let path = built.then(|| self.program(go, arch, PROGRAM, None)).transpose()?;
                measure(&mut measured, path.as_deref(), STANDARD)?;
            }
            by_arch.push(measured);
        }
        for (ty, fields) in &by_arch[0] {
            write!(text, "\ntype {ty}\n")?;
            for (field, values) in fields {
                line(&mut text, field, &keys, values)?;
                let arm = &by_arch[1][ty][field];
                if arm[first..] != values[first..] {
                    line(&mut text, &format!("{field}@arm64"), &keys, arm)?;
                }
            }
        }
        for library in LIBRARIES {
            let mut measured = Measured::new();
            for version in library.versions {
                let path = self.program(LIBRARY_TOOLCHAIN, "amd64", library.source, Some((library.module, version)))?;
                measure(&mut measured, Some(&path), library.types)?;
            }
            write!(text, "\nmodule {} {}\n", library.module, library.versions.join(" "))?;
            for (ty, fields) in &measured {
                writeln!(text, "type {ty}")?;
                for (field, values) in fields {
                    line(&mut text, field, library.versions, values)?;
                }
            }
        }
        Ok(text)
    }

    /// Runtime functions that came or went with a release, and are in no source file of any release on the other side.
    fn fingerprints(&self) -> Result<String> {
        let mut releases = Vec::new();
        for go in TOOLCHAINS {
            let mut names: Option<BTreeSet<String>> = None;
            for arch in architectures(go) {
                let path = self.program(go, arch, PROGRAM, None)?;
                let file = fs::File::open(&path)?;
                let simple = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                let here: BTreeSet<String> = functions_with_prefix(&file, "runtime.")?
                    .into_iter()
                    .filter_map(|f| f.name.strip_prefix("runtime.").filter(|n| simple(n)).map(str::to_owned))
                    .collect();
                names = Some(names.map_or(here.clone(), |before| before.intersection(&here).cloned().collect()));
            }
            releases.push((go, names.unwrap_or_default(), runtime_names(go)?));
        }
        let mut text = String::from(
            "# Functions of package runtime that came (new) with Go 1.N or were gone in it; generated by `cargo xtask offsets`.\n\
             # Linked into programs of every release on one side, in no source file of any release on the other.\n",
        );
        for at in 1..releases.len() {
            let minor = minor(releases[at].0);
            if minor == self::minor(releases[at - 1].0) {
                continue;
            }
            let (before, after) = releases.split_at(at);
            for (change, with, without) in [("new", after, before), ("gone", before, after)] {
                let mut kept = 0;
                for name in &with[if change == "new" { 0 } else { with.len() - 1 }].1 {
                    // What went may have come only a release before; what came may go again later.
                    let nearest = if change == "new" { with.first() } else { with.last() };
                    let linked = nearest.is_some_and(|(_, names, _)| names.contains(name));
                    if kept < MAX_FINGERPRINTS
                        && linked
                        && !without.iter().any(|(_, _, defined)| defined.contains(name))
                    {
                        writeln!(text, "{minor} {change} runtime.{name}")?;
                        kept += 1;
                    }
                }
                if kept == 0 {
                    println!("no function is {change} in Go 1.{minor}");
                }
            }
        }
        Ok(text)
    }

    /// What functions of the runtime do with its variables.
    fn witnesses(&self) -> Result<String> {
        let keys: Vec<_> = TOOLCHAINS.iter().map(|go| key(go)).collect();
        let mut text = format!(
            "# What functions of package runtime do with its variables, by Go release. Generated by `cargo xtask offsets`; do not edit.\n\
             # Read from the symbols and the code of programs built for linux/amd64 and linux/arm64 (VARIABLE@arm64 where it differs).\n\
             # Each use: the offset in the variable; `a` takes the address, `r8` reads 8 bytes, `w8` writes, `x8` does both;\n\
             # `#2/5`: of the five words that the function uses so, it is the third. 26.0=...: from Go 1.26.0 on.\n\ngo {}\n",
            keys.iter().map(|key| format!("1.{key}")).collect::<Vec<_>>().join(" ")
        );
        let mut rows: BTreeMap<(&str, &str), [Vec<Option<String>>; 2]> = BTreeMap::new();
        for (index, go) in TOOLCHAINS.iter().enumerate() {
            for (place, arch) in architectures(go).iter().enumerate() {
                let path = self.program(go, arch, PROGRAM, None)?;
                for (function, variable, uses) in variable_uses(&fs::File::open(&path)?)? {
                    let empty = || [vec![None; TOOLCHAINS.len()], vec![None; TOOLCHAINS.len()]];
                    rows.entry((function, variable.name())).or_insert_with(empty)[place][index] = Some(uses);
                }
            }
        }
        let first = TOOLCHAINS.iter().take_while(|go| architectures(go).len() == 1).count();
        let mut last = "";
        for ((function, variable), [amd64, arm64]) in &rows {
            if *function != last {
                write!(text, "\nfunction {function}\n")?;
                last = function;
            }
            writeln!(text, "{variable}{}", steps(&keys, amd64))?;
            if arm64[first..] != amd64[first..] {
                writeln!(text, "{variable}@arm64{}", steps(&keys, arm64))?;
            }
        }
        Ok(text)
    }

    fn write_samples(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir)?;
        for go in last_releases() {
            for arch in architectures(go) {
                let path = self.program(go, arch, PROGRAM, None)?;
                let binary = GoBinary::open(&path, &SAMPLES, &[])?;
                let mut text = format!(
                    "# Code of functions built by go{go} for linux/{arch}; `head`: cut. Generated by `cargo xtask offsets --functions`.\n"
                );
                for name in SAMPLES {
                    let Some(function) = binary.function(name) else { continue };
                    let code = binary.code(function)?;
                    let whole = code.len() <= SAMPLE_WHOLE;
                    let kept = if whole { code } else { &code[..SAMPLE_HEAD] };
                    let hex = kept.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
                    writeln!(text, "{name} {} {hex}", if whole { "whole" } else { "head" })?;
                }
                fs::write(dir.join(format!("go{go}-{arch}.txt")), text)?;
            }
        }
        println!("wrote {}", dir.display());
        Ok(())
    }
}

fn is_source(path: &Path) -> bool {
    let test = path.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("_test"));
    !test && path.extension().is_some_and(|ext| ext == "go" || ext == "s")
}

fn go_command(go: &str, arch: &str) -> Command {
    let mut command = Command::new("go");
    // The release itself may be what is installed; -mod=mod also keeps out defaults that old releases do not know.
    command.env("GOTOOLCHAIN", format!("go{go}")).env("GOFLAGS", "-mod=mod").env("GOWORK", "off");
    // Go 1.19's module index fails on a toolchain that lies in the module cache ("import of unknown directory").
    command.env("GODEBUG", "goindex=0");
    command.env("CGO_ENABLED", "0").env("GOOS", "linux").env("GOARCH", arch).env("GOAMD64", "v1");
    command
}

/// Adds the offsets in one program, or none, to each row.
fn measure(measured: &mut Measured, path: Option<&Path>, types: &[(&str, &str)]) -> Result<()> {
    let fields: Vec<(&str, Vec<&str>)> = types.iter().map(|(ty, fields)| (*ty, fields.split(' ').collect())).collect();
    let wanted: Vec<(&str, &[&str])> = fields.iter().map(|(ty, fields)| (*ty, fields.as_slice())).collect();
    let mut layouts = None;
    if let Some(path) = path {
        let read = dwarf_layouts(&fs::File::open(path)?, &wanted)?;
        if read.source() != LayoutsFrom::Dwarf {
            bail!("{}: {}", path.display(), read.reason().unwrap_or_default());
        }
        layouts = Some(read);
    }
    for (ty, fields) in &fields {
        for field in fields.iter().chain([&SIZE]) {
            let value = layouts.as_ref().and_then(|l| l.offset(ty, field));
            measured.entry((*ty).into()).or_default().entry((*field).into()).or_default().push(value);
        }
    }
    Ok(())
}

/// Writes a field's values where they change; nothing for a field that never was.
fn line(text: &mut String, field: &str, keys: &[&str], values: &[Option<u32>]) -> Result<()> {
    let mut last = None;
    let mut steps = String::new();
    for (key, value) in keys.iter().zip(values) {
        if *value != last {
            write!(steps, " {key}={}", value.map_or("-".into(), |v| v.to_string()))?;
            last = *value;
        }
    }
    if !steps.is_empty() {
        writeln!(text, "{field}{steps}")?;
    }
    Ok(())
}

/// Values where they change; the first always.
fn steps(keys: &[String], values: &[Option<String>]) -> String {
    let mut text = String::new();
    for (index, (key, value)) in keys.iter().zip(values).enumerate() {
        if index == 0 || values[index - 1] != *value {
            let _ = write!(text, " {key}={}", value.as_deref().unwrap_or("-"));
        }
    }
    text
}

/// Names that the source of package runtime, or of those that may define functions for it, defines or links to.
fn runtime_names(go: &str) -> Result<BTreeSet<String>> {
    let output = go_command(go, "amd64").args(["env", "GOROOT"]).output().context("running go env")?;
    let root = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let mut names = BTreeSet::new();
    let mut folders: Vec<_> = ["runtime", "internal", "reflect", "sync", "syscall", "time", "os"]
        .iter()
        .map(|package| root.join("src").join(package))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("go{go} has no {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "testdata") {
                folders.push(path);
            } else if is_source(&path) {
                let text = fs::read_to_string(&path)?;
                // `func name(` in Go, `runtime·name(SB)` in assembly, `runtime.name` in linkname directives.
                for (at, mark) in ["func ", "·", "runtime."].iter().flat_map(|mark| text.match_indices(mark)) {
                    let rest = &text[at + mark.len()..];
                    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                    names.insert(rest[..end].to_owned());
                }
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::last_releases;
    use crate::go::RELEASES;

    #[test]
    fn the_table_is_made_of_the_releases_that_tests_build_with() {
        assert!(last_releases().eq(RELEASES.iter().map(|release| release.version)));
    }
}
