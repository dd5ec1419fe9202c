//! From addresses in a process to offsets in its executable.

use super::NoProfile;

/// Where the code of a process's executable is mapped: start, end, offset in the file.
pub(super) struct Mapped(Vec<(u64, u64, u64)>);

impl Mapped {
    pub(super) fn of(pid: u32, inode: u64) -> Result<Self, NoProfile> {
        let inode = inode.to_string();
        let bytes = crate::process::told(pid, "maps")
            .map_err(|error| NoProfile::Failed(format!("the process's memory map: {error}")))?;
        let parse = |line: &str| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next()?.split_once('-')?;
            let executable = words.next()?.contains('x');
            let hex = |text| u64::from_str_radix(text, 16).ok();
            let range = (hex(start)?, hex(end)?, hex(words.next()?)?);
            // Behind the offset are the device, which an overlay shows as another, and the inode.
            (executable && words.nth(1)? == inode).then_some(range)
        };
        // Names of files may be any bytes.
        Ok(Self(String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect()))
    }

    pub(super) fn file_offset(&self, address: u64) -> Option<u64> {
        let (start, _, offset) = self.0.iter().find(|(start, end, _)| (*start..*end).contains(&address))?;
        Some(address - start + offset)
    }
}
