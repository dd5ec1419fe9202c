//! Programs that were started through the dynamic linker (`ld.so program`): the linker is what their process runs, and the program is
//! among what it has mapped. Knows nothing of Go.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use super::{Process, filesystem};

impl Process {
    /// Whether its executable is named as dynamic linkers are: glibc's `ld-linux-x86-64.so.2` and `ld-2.31.so`, musl's
    /// `ld-musl-x86_64.so.1`, which is the C library too and may have its name.
    pub(crate) fn is_linker(&self) -> bool {
        self.executable.file_name().is_some_and(is_linkers)
    }

    /// The program that the linker has mapped, opened, with its path as the process sees it; none where there is none. Waits for the
    /// process's memory and the program's file system.
    ///
    /// # Errors
    /// The mappings cannot be read, or the file cannot be opened through them, which needs CAP_SYS_ADMIN or
    /// CAP_CHECKPOINT_RESTORE (proc_pid_map_files(5)).
    pub(crate) fn linked_program(&self) -> io::Result<Option<(PathBuf, File)>> {
        let pid = self.id.pid;
        let maps = super::told(pid, "maps")?;
        let Some((range, path)) = program_in(&maps) else { return Ok(None) };
        // Through the mapping: no path of the process's making is walked.
        let handle = filesystem::handle(Path::new(&format!("/proc/{pid}/map_files/{range}")))?;
        filesystem::may_be_read(pid, &filesystem::stat_of(&handle)?)?;
        Ok(Some((path, filesystem::open(&handle)?)))
    }
}

fn is_linkers(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let has = |part: &[u8]| name.windows(part.len()).any(|it| it == part);
    (name.starts_with(b"ld-") && has(b".so")) || name == b"ld.so" || name == b"libc.so"
}

/// The first file that is mapped as code and is no library, with its range as /proc/PID/map_files names it.
fn program_in(maps: &[u8]) -> Option<(String, PathBuf)> {
    let is_library = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        let bytes = name.as_bytes();
        is_linkers(name) || bytes.ends_with(b".so") || bytes.windows(4).any(|it| it == b".so.")
    };
    maps.split(|byte| *byte == b'\n').find_map(|line| {
        // `START-END PERMISSIONS OFFSET DEVICE INODE   PATH` (proc_pid_maps(5)).
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let (range, permissions) = (fields.next()?, fields.next()?);
        let path = fields.nth(3)?.trim_ascii_start();
        let file = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
        let is_program = permissions.contains(&b'x') && path.starts_with(b"/") && !is_library(&file);
        is_program.then(|| Some((range_name(range)?, file)))?
    })
}

/// /proc/PID/map_files has no leading zeros (`map_files_get_link` in fs/proc/base.c).
fn range_name(range: &[u8]) -> Option<String> {
    let (start, end) = std::str::from_utf8(range).ok()?.split_once('-')?;
    let plain = |digits: &str| u64::from_str_radix(digits, 16).ok();
    Some(format!("{:x}-{:x}", plain(start)?, plain(end)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linkers_have_a_few_names() {
        for name in
            ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "ld-2.31.so", "ld-musl-x86_64.so.1", "ld.so", "libc.so"]
        {
            assert!(is_linkers(OsStr::new(name)), "{name}");
        }
        for name in ["ld", "ld-shop", "shop", "libc.so.6", "old-ld-linux.so"] {
            assert!(!is_linkers(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_program_is_what_is_mapped_as_code_and_no_library() {
        let maps = b"00400000-004a1000 r--p 00000000 00:27 7   /srv/my shop\n\
            004a1000-00500000 r-xp 000a1000 00:27 7   /srv/my shop\n\
            7f0000000000-7f0000001000 r-xp 00000000 00:27 8   /lib/libc.so.6\n";
        assert_eq!(program_in(maps), Some(("4a1000-500000".into(), "/srv/my shop".into())));
        let none = b"7f0000000000-7f0000001000 r-xp 00000000 00:27 8   /lib/ld-linux-x86-64.so.2\n\
            7f0000000000-7f0000001000 r-xp 00000000 00:00 0   [vdso]\n7f0000000000-7f0000001000 r-xp 00000000 00:00 0 \n\
            7f0000000000-7f0000001000 r-xp 00000000 00:27 8   /lib/libpthread.so.0\nnonsense\n";
        assert_eq!(program_in(none), None);
    }
}
