//! Whether a probe is really in a process: where the kernel has put one, the code in memory is not that of the file.

use std::{
    fs,
    io::{self, IoSliceMut},
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::Path,
};

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use super::Process;

/// Bytes compared: a breakpoint is one byte on amd64, four on arm64; a rewritten nop five, beginning with another first byte.
const BYTES: usize = 4;

/// Whether the process's code at this offset of its executable differs from the file's.
///
/// # Errors
/// The process is gone or cannot be read; `NotFound` where it does not map that part of the file as code.
pub(crate) fn is_probed(process: &Process, file_offset: u64) -> io::Result<bool> {
    let address = address_of(process, file_offset)?;
    let mut in_file = [0; BYTES];
    let mut in_memory = [0; BYTES];
    process.open()?.read_exact_at(&mut in_file, file_offset)?;
    let remote = RemoteIoVec { base: usize::try_from(address).unwrap_or(usize::MAX), len: BYTES };
    let pid = Pid::from_raw(process.id.pid as i32);
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut in_memory)], &[remote])?;
    if read == BYTES { Ok(in_file != in_memory) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Where the process has this part of its executable as code.
fn address_of(process: &Process, file_offset: u64) -> io::Result<u64> {
    let pid = process.id.pid;
    let executable = as_in_maps(&fs::read_link(process.exe())?);
    let maps = super::told(pid, "maps")?;
    let mut lines = maps.split(|byte| *byte == b'\n');
    lines.find_map(|line| address_in(line, &executable, file_offset)).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A path as /proc/PID/maps has it: bytes, line ends escaped (`show_map_vma` in fs/proc/task_mmu.c).
pub(super) fn as_in_maps(path: &Path) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        if byte == b'\n' { escaped.extend(b"\\012") } else { escaped.push(byte) }
    }
    escaped
}

/// A line of /proc/PID/maps is `START-END PERMISSIONS OFFSET DEVICE INODE   PATH` (proc_pid_maps(5)).
fn address_in(line: &[u8], executable: &[u8], file_offset: u64) -> Option<u64> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let number = |digits: &[u8]| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let mut range = fields.next()?.split(|byte| *byte == b'-');
    let (start, end) = (number(range.next()?)?, number(range.next()?)?);
    let executes = fields.next()?.contains(&b'x');
    let offset = number(fields.next()?)?;
    // Padded with blanks; a path begins with a slash.
    let path = fields.nth(2)?.trim_ascii_start();
    let within = file_offset.checked_sub(offset).filter(|within| *within < end - start)?;
    (executes && path == executable).then_some(start + within)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn an_address_is_found_in_the_mapping_of_code() {
        let line = "55d245918000-55d24591d000 r-xp 00002000 00:27 10019098                   /srv/my app";
        let address_in =
            |line: &str, path: &str, offset| super::address_in(line.as_bytes(), &as_in_maps(Path::new(path)), offset);
        assert_eq!(address_in(line, "/srv/my app", 0x2010), Some(0x55d2_4591_8010));
        assert_eq!(address_in(line, "/srv/my app", 0x1fff), None);
        assert_eq!(address_in(line, "/srv/my app", 0x7000), None);
        assert_eq!(address_in(line, "/srv/other", 0x2010), None);
        assert_eq!(address_in(&line.replace("r-xp", "r--p"), "/srv/my app", 0x2010), None);
        assert_eq!(address_in("", "", 0), None);
        assert_eq!(address_in("1000-2000 r-xp 00000000 00:27 1 /srv/a\\012b", "/srv/a\nb", 0x10), Some(0x1010));
        let latin = OsStr::from_bytes(b"/srv/caf\xe9");
        let line = b"1000-2000 r-xp 00000000 00:27 1   /srv/caf\xe9";
        assert_eq!(super::address_in(line, &as_in_maps(Path::new(latin)), 0x10), Some(0x1010));
    }

    #[test]
    fn this_process_has_no_probe() {
        let me = Process::find(std::process::id()).unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let executable = me.executable.to_string_lossy().into_owned();
        let code = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with(&executable)).unwrap();
        let offset = u64::from_str_radix(code.split(' ').nth(2).unwrap(), 16).unwrap();
        assert!(!is_probed(&me, offset).unwrap());
        assert_eq!(is_probed(&me, 1 << 60).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
