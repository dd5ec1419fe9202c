//! File systems that a test mounts, and takes away again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a command that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A mount, undone at the end.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    /// `mount ARGUMENTS AT`.
    pub(crate) fn new(arguments: &[&str], at: PathBuf) -> Self {
        // What a killed test left.
        let _ = Command::new("umount").arg("--lazy").arg(&at).output();
        fs::create_dir_all(&at).expect("a directory");
        let mut all = arguments.to_vec();
        all.push(at.to_str().expect("a plain path"));
        run("mount", &all);
        Self(at)
    }

    /// An overlay of its own upper layer on this lower one.
    pub(crate) fn overlay(lower: &Path, scratch: &Path, name: &str) -> Self {
        let directories = ["upper", "work"].map(|kind| scratch.join(format!("{name}-{kind}")));
        for directory in &directories {
            fs::create_dir_all(directory).expect("a directory");
        }
        let [upper, work] = directories.map(|it| it.display().to_string());
        let options = format!("lowerdir={},upperdir={upper},workdir={work}", lower.display());
        Self::new(&["-t", "overlay", "overlay", "-o", &options], scratch.join(name))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// A file that is marked as immutable until this is dropped.
pub(crate) struct Immutable(PathBuf);

impl Immutable {
    pub(crate) fn new(file: &Path) -> Self {
        run("chattr", &["+i", file.to_str().expect("a plain path")]);
        Self(file.to_owned())
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).output();
    }
}
