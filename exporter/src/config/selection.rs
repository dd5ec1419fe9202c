//! Which processes are wanted, in standalone mode.

use std::path::{Path, PathBuf};

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

/// Any of these selects a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Selection {
    /// Process ids.
    pub(crate) pids: Vec<u32>,
    /// Globs over executables: over the whole path where the glob has a `/`, otherwise over the file name.
    pub(crate) executables: Vec<String>,
    /// TCP ports that a process listens on.
    pub(crate) listen_ports: Vec<u16>,
    /// Every Go process.
    pub(crate) all: bool,
}

impl Selection {
    /// Whether it selects nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.pids.is_empty() && self.executables.is_empty() && self.listen_ports.is_empty() && !self.all
    }

    /// What is given as the plain path of a symbolic link, and what it leads to: the kernel knows a process by its executable's own
    /// path, which no link ever is.
    pub(crate) fn links(&self) -> Vec<(&str, PathBuf)> {
        let link = |glob: &str| {
            // A pattern is no path: nothing is looked for, which might wait for a file system.
            if glob.contains(['*', '?', '[', '{']) {
                return None;
            }
            let path = Path::new(glob);
            let is = path.canonicalize().ok()?;
            (path.is_absolute() && is != path && !self.matcher().ok()?.matches(&is)).then_some(is)
        };
        self.executables.iter().filter_map(|glob| Some((glob.as_str(), link(glob)?))).collect()
    }

    /// The globs, compiled; the bad glob and why, if one is bad.
    pub(crate) fn matcher(&self) -> Result<Globs, (String, String)> {
        let build = |whole_path: bool| {
            let mut set = GlobSetBuilder::new();
            for glob in self.executables.iter().filter(|glob| glob.contains('/') == whole_path) {
                set.add(Glob::new(glob).map_err(|error| (glob.clone(), error.kind().to_string()))?);
            }
            set.build().map_err(|error| (self.executables.join(", "), error.kind().to_string()))
        };
        Ok(Globs { paths: build(true)?, names: build(false)? })
    }
}

/// Compiled globs.
#[derive(Clone, Debug)]
pub(crate) struct Globs {
    paths: GlobSet,
    names: GlobSet,
}

impl Globs {
    /// Whether an executable matches.
    pub(crate) fn matches(&self, executable: &Path) -> bool {
        self.paths.is_match(executable) || executable.file_name().is_some_and(|name| self.names.is_match(name))
    }
}
