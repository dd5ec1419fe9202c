//! Packages of other suites and architectures, by apt in a state of its own below `target/vm/apt`: nothing of the machine's
//! own configuration is changed. The mirror is the one that the machine's apt has for Debian.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Arch, directory};
use crate::util;

const ARCHIVE_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Installs what the machine lacks for this command.
pub(super) fn install_tools(arch: Arch) -> Result<()> {
    let needed: &[(&str, &str)] = match arch {
        Arch::Amd64 => &[("qemu-system-x86_64", "qemu-system-x86")],
        Arch::Arm64 => &[
            ("qemu-system-aarch64", "qemu-system-arm"),
            ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
        ],
    };
    util::install(needed)
}

/// One line of an apt source: a suite on a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    label: String,
    codename: String,
    uri: String,
}

/// A suite of Debian, for amd64 and arm64.
pub(super) struct Suite {
    home: PathBuf,
}

impl Suite {
    /// A suite of Debian's archive.
    pub(super) fn open(codename: &str) -> Result<Self> {
        let sources = machine_sources()?;
        let main = sources.iter().find(|source| source.label == "Debian");
        let mirror = main.context("apt knows no mirror of Debian's archive: kernels come from Debian's packages")?;
        Self::of(codename, &[Source { codename: codename.to_owned(), ..mirror.clone() }])
    }

    /// The suites that the machine itself uses, for packages of the machine's own release.
    pub(super) fn machine() -> Result<Self> {
        Self::of("machine", &machine_sources()?)
    }

    fn of(name: &str, sources: &[Source]) -> Result<Self> {
        let suite = Self { home: directory().join("apt").join(name) };
        for part in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(suite.home.join(part))?;
        }
        let signed = if Path::new(ARCHIVE_KEYRING).is_file() {
            format!("[signed-by={ARCHIVE_KEYRING}] ")
        } else {
            String::new()
        };
        let line = |source: &Source| format!("deb {signed}{} {} main\n", source.uri, source.codename);
        util::write_if_changed(
            &suite.home.join("sources.list"),
            sources.iter().map(line).collect::<String>().as_bytes(),
        )?;
        util::say(&format!("updating the package lists of {name} below target/vm/apt"));
        util::output(suite.command("apt-get").args(["update", "-qq"]))?;
        Ok(suite)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, file) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "none"),
            ("Dir::Etc::preferences", "none"),
            ("Dir::Etc::preferencesparts", "none"),
            ("Dir::State", "state"),
            ("Dir::State::status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{option}={}", self.home.join(file).display()));
        }
        // Root without a sandbox: the files go below the checkout, which apt's own user may be unable to read.
        for option in ["APT::Architectures::=amd64", "APT::Architectures::=arm64", "APT::Sandbox::User=root"] {
            command.args(["-o", option]);
        }
        command.args(["-o", "Acquire::Languages=none"]).env("LC_ALL", "C");
        command
    }

    /// The package, named with its architecture, that a package depends on and whose name begins so.
    pub(super) fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        let shown = util::output(self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        let depends = shown.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        let names = depends.split([',', '|']).filter_map(|one| one.split_whitespace().next());
        let name = names.into_iter().find(|name| name.starts_with(prefix));
        let architecture = package.rsplit_once(':').map_or("amd64", |(_, architecture)| architecture);
        Ok(format!(
            "{}:{architecture}",
            name.with_context(|| format!("{package} depends on no {prefix}*, but on {depends}"))?
        ))
    }

    /// Downloads a package, named with its architecture and perhaps `=VERSION`, and unpacks it.
    pub(super) fn unpack(&self, package: &str, to: &Path) -> Result<()> {
        let download = self.home.join("download");
        let _ = fs::remove_dir_all(&download);
        fs::create_dir_all(&download)?;
        fs::create_dir_all(to)?;
        util::say(&format!("downloading {package}"));
        util::output(self.command("apt-get").args(["download", "-qq", package]).current_dir(&download))?;
        for file in fs::read_dir(&download)? {
            util::output(Command::new("dpkg-deb").arg("-x").arg(file?.path()).arg(to))?;
        }
        fs::remove_dir_all(&download)?;
        Ok(())
    }
}

/// Debian's suites, as the machine's apt has them.
fn machine_sources() -> Result<Vec<Source>> {
    if util::which("apt-get").is_none() {
        bail!("apt-get is not on PATH: kernels come from Debian's packages");
    }
    let list = || -> Result<Vec<Source>> {
        let format = "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)";
        let listed =
            util::output(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]))?;
        let mut sources = Vec::new();
        for source in listed.lines().filter_map(source) {
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        Ok(sources)
    };
    let sources = list()?;
    if !sources.is_empty() {
        return Ok(sources);
    }
    // A fresh image has no package lists, and without them apt does not say whose they are.
    util::run(util::as_root(Path::new("apt-get"), &[])?.arg("update"))?;
    list()
}

fn source(line: &str) -> Option<Source> {
    let mut fields = line.split('|').map(str::to_owned);
    let (origin, label, codename, uri) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    (origin == "Debian").then_some(Source { label, codename, uri })
}

#[cfg(test)]
mod tests {
    use super::source;

    #[test]
    fn sources_are_those_of_debian() {
        let read = source("Debian|Debian-Security|stable-security|mirror:/security/").unwrap();
        assert_eq!((read.label.as_str(), read.codename.as_str()), ("Debian-Security", "stable-security"));
        assert_eq!(read.uri, "mirror:/security/");
        assert_eq!(source("Other|Other|x|mirror:/"), None);
    }
}
