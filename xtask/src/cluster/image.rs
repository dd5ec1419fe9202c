//! Images made on this machine: one layer with a few files, in the form that `ctr images import` reads. Containers of one
//! image share the layer, and so the inode of its executable.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::util;

/// An image to be made.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its name with a tag, as pods name it: `gopulse.test/counted:1`.
    pub name: String,
    /// Files by their path in the image, and where they are copied from.
    pub files: Vec<(String, PathBuf)>,
    /// What a container runs unless its pod says otherwise.
    pub entrypoint: Vec<String>,
    /// The user that it runs as, `65532` or `65532:65532`; empty is root.
    pub user: String,
}

impl Image {
    /// An image from scratch with one static executable, as Go services are shipped.
    pub fn of(name: &str, executable: &Path) -> Self {
        Self {
            name: name.to_owned(),
            files: vec![("app".to_owned(), executable.to_owned())],
            entrypoint: vec!["/app".to_owned()],
            user: String::new(),
        }
    }

    /// Writes it as an archive into a directory; the archive's path.
    pub(super) fn archive(&self, directory: &Path) -> Result<PathBuf> {
        let work = directory.join("image");
        let _ = fs::remove_dir_all(&work);
        let root = work.join("root");
        fs::create_dir_all(&root)?;
        for (path, from) in &self.files {
            let to = root.join(path.trim_start_matches('/'));
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(from, &to).with_context(|| format!("cannot copy {} into an image", from.display()))?;
        }
        let layer = work.join("layer.tar");
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "-cf"]).arg(&layer);
        util::output(tar.arg("-C").arg(&root).arg("."))?;
        let digest = util::output(Command::new("sha256sum").arg(&layer))?;
        let digest = digest.split(' ').next().unwrap_or_default();
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "User": self.user },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        fs::write(work.join("config.json"), config.to_string())?;
        let manifest = json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"] }]);
        fs::write(work.join("manifest.json"), manifest.to_string())?;
        let archive = directory.join("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&archive).arg("-C").arg(&work).args(["manifest.json", "config.json", "layer.tar"]);
        util::output(&mut tar)?;
        fs::remove_dir_all(&work)?;
        Ok(archive)
    }
}
