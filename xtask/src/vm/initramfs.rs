//! An initramfs: a cpio archive of the `newc` kind (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// The archive's last entry.
const TRAILER: &str = "TRAILER!!!";

/// An archive being written.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds an executable file, and the directories on its way.
    pub(super) fn file(&mut self, to: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        for (at, _) in to.match_indices('/') {
            self.directory(&to[..at]);
        }
        self.entry(to, EXECUTABLE, (0, 0), &content);
        Ok(())
    }

    /// The whole archive, with the console that init's standard streams are.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.directory("dev");
        self.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[]);
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn directory(&mut self, path: &str) {
        if self.directories.insert(path.to_owned()) {
            self.entry(path, DIRECTORY, (0, 0), &[]);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let (inode, links) = (self.entries, 1);
        let (size, name_size) = (content.len() as u32, name.len() as u32 + 1);
        // Inode, mode, user, group, links, time, size, the file's device, its own device, name, checksum.
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_are_aligned_and_directories_come_once() {
        let mut archive = Archive::default();
        let file = std::env::current_exe().unwrap();
        archive.file("lib/one/a", &file).unwrap();
        archive.file("lib/one/b", &file).unwrap();
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let headers = bytes.windows(6).filter(|window| window == b"070701").count();
        // lib, lib/one, two files, dev, dev/console, the trailer; the test's own executable holds the magic too.
        assert!(headers >= 7, "{headers}");
        assert!(bytes.starts_with(b"07070100000001000041ed"));
    }
}
