//! Programs that nobody here wrote, as their distributors ship them, stripped: Debian's Go programs, and those inside npm
//! packages. Fetched by `apt-get download` and `npm pack` into `target/foreign`, once, and never installed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::util;

/// A program and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Foreign {
    /// Its short name.
    pub name: &'static str,
    package: Package,
    file: &'static str,
    /// Debian packages with shared libraries that it needs to run.
    needs: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Package {
    Debian(&'static str),
    Npm(&'static str),
}

/// All of them.
pub const PROGRAMS: [Foreign; 6] = [
    debian("prometheus", "prometheus", "usr/bin/prometheus"),
    debian("node-exporter", "prometheus-node-exporter", "usr/bin/prometheus-node-exporter"),
    debian("etcd", "etcd-server", "usr/bin/etcd"),
    debian("caddy", "caddy", "usr/bin/caddy"),
    Foreign { needs: &["libsass1", "libwebp7"], ..debian("hugo", "hugo", "usr/bin/hugo") },
    Foreign { name: "esbuild", package: Package::Npm("@esbuild/linux-x64"), file: "package/bin/esbuild", needs: &[] },
];

const fn debian(name: &'static str, package: &'static str, file: &'static str) -> Foreign {
    Foreign { name, package: Package::Debian(package), file, needs: &[] }
}

/// The executable of this name, fetched if it was not.
pub fn program(name: &str) -> Result<PathBuf> {
    let found = PROGRAMS.iter().find(|program| program.name == name);
    found.with_context(|| format!("no foreign program `{name}`"))?.path()
}

/// A command that runs the program of this name, fetched if it was not.
pub fn command(name: &str) -> Result<Command> {
    let found = PROGRAMS.iter().find(|program| program.name == name);
    let found = found.with_context(|| format!("no foreign program `{name}`"))?;
    let mut command = Command::new(found.path()?);
    if !found.needs.is_empty() {
        command.env("LD_LIBRARY_PATH", found.libraries()?);
    }
    Ok(command)
}

impl Foreign {
    /// The executable, fetched if it was not.
    pub fn path(&self) -> Result<PathBuf> {
        let folder = util::target().join("foreign");
        let _lock = lock(&folder)?;
        let into = folder.join(match self.package {
            Package::Debian(package) => package,
            Package::Npm(_) => self.name,
        });
        let path = into.join(self.file);
        if !path.is_file() {
            match self.package {
                Package::Debian(package) => deb(package, &into)?,
                Package::Npm(package) => npm(package, &into)?,
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("{} is not in the package any more", path.display()))?;
        }
        Ok(path)
    }

    /// The folder with the shared libraries that it needs.
    fn libraries(&self) -> Result<PathBuf> {
        let folder = util::target().join("foreign");
        let _lock = lock(&folder)?;
        let into = folder.join(format!("{}-libraries", self.name));
        let done = into.join("done");
        if !done.is_file() {
            for package in self.needs {
                deb(package, &into)?;
            }
            fs::write(done, "")?;
        }
        Ok(into.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)))
    }
}

/// Several tests, in one process or more, may want the same program at once.
fn lock(folder: &Path) -> Result<fs::File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock = fs::File::create(folder.join("lock"))?;
    lock.lock().context("cannot lock target/foreign/lock")?;
    Ok(lock)
}

fn deb(package: &str, into: &Path) -> Result<()> {
    let parts = into.with_extension("part");
    let _ = fs::remove_dir_all(&parts);
    fs::create_dir_all(&parts)?;
    let download = || util::run(Command::new("apt-get").current_dir(&parts).args(["-qq", "download", package]));
    // A machine on which nothing was installed yet has no lists of packages.
    download().or_else(|_| util::run(Command::new("apt-get").args(["-qq", "update"])).and_then(|()| download()))?;
    util::run(Command::new("dpkg-deb").arg("-x").arg(only(&parts, "deb")?).arg(into))?;
    fs::remove_dir_all(&parts).context("cannot clean up")
}

fn npm(package: &str, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    util::run(Command::new("npm").current_dir(into).args(["pack", "--silent", package]))?;
    util::run(Command::new("tar").current_dir(into).arg("-xzf").arg(only(into, "tgz")?))
}

fn only(folder: &Path, extension: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            return Ok(path);
        }
    }
    bail!("no .{extension} came into {}", folder.display())
}
