//! The generated table of layouts: parsed at first use, asked by version. Knows nothing of files.
//!
//! The format, one line each: `go 1.17.13 1.18.10 ...` (toolchains it was made with), `type NAME`, and under it
//! `FIELD 17.1=144 23.0=152 27.0=-` (from that release of Go 1 on; `-`: no such field), `FIELD@arm64 ...` where arm64
//! differs, `module PATH` (the types below belong to a module and are keyed by its version).

use std::collections::HashMap;
use std::sync::OnceLock;

use super::Fields;
use super::steps::{Release, Steps, between, release, release_of, step};
use crate::buildinfo::BuildInfo;
use crate::elf::Arch;
use crate::version::GoVersion;

static TEXT: &str = include_str!("table.txt");

/// The parsed table.
#[derive(Debug, Default)]
pub(crate) struct Table {
    std: Measured<Release>,
    modules: HashMap<String, Measured<Semver>>,
}

/// Structs as measured in some versions.
#[derive(Debug)]
struct Measured<V> {
    versions: Vec<V>,
    types: HashMap<String, HashMap<String, Steps<V, u32>>>,
}

impl<V> Default for Measured<V> {
    fn default() -> Self {
        Self { versions: Vec::new(), types: HashMap::new() }
    }
}

impl Table {
    pub(crate) fn get() -> &'static Self {
        static TABLE: OnceLock<Table> = OnceLock::new();
        TABLE.get_or_init(|| Self::parse(TEXT))
    }

    /// Lines that make no sense are left out: the file is generated, and `cargo xtask offsets --check` compares it.
    fn parse(text: &str) -> Self {
        let mut table = Self::default();
        let (mut module, mut ty) = (None::<String>, String::new());
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("go") => {
                    table.std.versions = words.filter_map(|v| release(v.strip_prefix("1.")?)).collect();
                }
                Some("module") => {
                    let path = words.next().unwrap_or_default().to_owned();
                    table.modules.entry(path.clone()).or_default().versions = words.filter_map(Semver::parse).collect();
                    module = Some(path);
                }
                Some("type") => words.next().unwrap_or_default().clone_into(&mut ty),
                Some(field) => match &module {
                    None => table.std.add(&ty, field, words, release),
                    Some(path) => {
                        table.modules.entry(path.clone()).or_default().add(&ty, field, words, Semver::parse);
                    }
                },
                None => {}
            }
        }
        table
    }

    /// Whether a Go version is among those measured or between them, or why not.
    pub(crate) fn covers(&self, version: &GoVersion) -> Result<(), String> {
        if !version.is_known() {
            return Err("the Go version is not recorded in the program".into());
        }
        if version.devel {
            return Err(format!("{version} is a development build, whose layouts may be those of no release"));
        }
        let wanted = release_of(version);
        let inside = |(first, last): (&Release, &Release)| *first <= wanted && wanted <= *last;
        let range = self.std.versions.first().zip(self.std.versions.last());
        if version.major == 1 && range.is_some_and(inside) {
            return Ok(());
        }
        let name = |release: &Release| format!("1.{}.{}", release.0, release.1);
        let range = range.map_or("empty".into(), |(first, last)| format!("Go {} to {}", name(first), name(last)));
        Err(format!("{version} is not in the layout table ({range})"))
    }

    /// The wanted fields as the table has them.
    pub(crate) fn wanted(&self, arch: Arch, info: &BuildInfo, wanted: &[(&str, &[&str])]) -> HashMap<String, Fields> {
        let mut found = HashMap::new();
        for (ty, fields) in wanted {
            let mut offsets = Fields::new();
            for &field in fields.iter().chain(&[super::SIZE]) {
                if let Some(offset) = self.offset(arch, info, ty, field) {
                    offsets.insert(field.to_owned(), offset);
                }
            }
            if !offsets.is_empty() {
                found.insert((*ty).to_owned(), offsets);
            }
        }
        found
    }

    fn offset(&self, arch: Arch, info: &BuildInfo, ty: &str, field: &str) -> Option<u32> {
        if let Some(fields) = self.std.types.get(ty) {
            let special = format!("{field}@arm64");
            let field = if arch == Arch::Arm64 && fields.contains_key(&special) { &special } else { field };
            return self.std.offset(&release_of(&info.go_version), ty, field);
        }
        let (path, library) = self.modules.iter().find(|(_, library)| library.types.contains_key(ty))?;
        library.offset(&Semver::parse(&info.module(path)?.version)?, ty, field)
    }
}

impl<V: Ord> Measured<V> {
    fn add<'w>(
        &mut self,
        ty: &str,
        field: &str,
        words: impl Iterator<Item = &'w str>,
        version: impl Fn(&str) -> Option<V>,
    ) {
        let steps = words.filter_map(|word| step(word, &version, |text| text.parse().ok())).collect();
        self.types.entry(ty.to_owned()).or_default().insert(field.to_owned(), steps);
    }

    fn offset(&self, version: &V, ty: &str, field: &str) -> Option<u32> {
        between(&self.versions, self.types.get(ty)?.get(field)?, version)
    }
}

/// A module version, ordered as Go orders them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Semver {
    numbers: [u64; 3],
    /// Empty for a release, which comes after its pre-releases.
    pre: String,
}

impl Semver {
    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v')?.split('+').next()?;
        let (numbers, pre) = text.split_once('-').unwrap_or((text, ""));
        let mut parts = numbers.split('.').map(str::parse::<u64>);
        let mut next = || parts.next()?.ok();
        Some(Self { numbers: [next()?, next()?, next()?], pre: pre.to_owned() })
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| self.pre.is_empty().cmp(&other.pre.is_empty()))
            .then_with(|| self.pre.cmp(&other.pre))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "go 1.17.13 1.18.10 1.23.0 1.23.12\ntype net/http.response\nstatus 17.13=120 23.12=128\n\
                          Pattern 17.13=- 23.0=8\nstatus@arm64 17.13=1 23.0=2\nmodule a.b/c v0.1.0 v0.3.0 v0.5.0\n\
                          type a.b/c.T\nf v0.1.0=8 v0.5.0=16\n";

    fn info(version: &str, module: &str) -> BuildInfo {
        let mut info = BuildInfo::unknown();
        info.go_version = GoVersion::parse(version);
        info.deps.push(crate::buildinfo::Module { path: "a.b/c".into(), version: module.into(), ..Default::default() });
        info
    }

    #[test]
    fn values_hold_until_the_next_step() {
        let table = Table::parse(SAMPLE);
        let at = |arch, version: &str, field| table.offset(arch, &info(version, ""), "net/http.response", field);
        assert_eq!(at(Arch::Amd64, "go1.18.2", "status"), Some(120));
        assert_eq!(at(Arch::Amd64, "go1.23.0", "status"), Some(120));
        assert_eq!(at(Arch::Amd64, "go1.23.2", "status"), None, "moved somewhere between 1.23.0 and 1.23.12");
        assert_eq!(at(Arch::Amd64, "go1.23.12", "status"), Some(128));
        assert_eq!(at(Arch::Arm64, "go1.23.2", "status"), Some(2));
        assert_eq!(at(Arch::Amd64, "go1.18.2", "Pattern"), None);
        assert_eq!(at(Arch::Arm64, "go1.23.2", "Pattern"), Some(8));
        assert_eq!(at(Arch::Amd64, "go1.23rc1", "Pattern"), None);
        for (version, covered) in [
            ("go1.17.12", false),
            ("go1.19", true),
            ("go1.23.4-custom", true),
            ("go1.23.13", false),
            ("devel go1.23-abc", false),
        ] {
            assert_eq!(table.covers(&GoVersion::parse(version)).is_ok(), covered, "{version}");
        }
    }

    #[test]
    fn libraries_are_not_guessed() {
        let table = Table::parse(SAMPLE);
        let at = |version| table.offset(Arch::Amd64, &info("go1.18.10", version), "a.b/c.T", "f");
        assert_eq!(at("v0.1.0"), Some(8));
        assert_eq!(at("v0.2.0"), Some(8));
        assert_eq!(at("v0.4.0"), None, "changed somewhere between v0.3.0 and v0.5.0");
        assert_eq!(at("v0.5.0"), Some(16));
        assert_eq!(at("v0.6.0"), None);
        assert_eq!(at("v0.0.9"), None);
        assert_eq!(at("(devel)"), None);
    }

    #[test]
    fn versions_order_as_go_orders_them() {
        let v = |t| Semver::parse(t).unwrap();
        assert!(v("v0.0.0-20210405180319-a5a99cb37ef4") < v("v0.0.0-20220127200216-cd36cc0744dd"));
        assert!(v("v1.0.0-rc1") < v("v1.0.0"));
        assert!(v("v1.9.0") < v("v1.10.0"));
        assert_eq!(v("v2.0.0+incompatible"), v("v2.0.0"));
    }
}
