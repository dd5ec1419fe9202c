//! Whether a probe is really in a process: where the kernel has put one, the code in memory is not that of the file.

use std::{
    fs::{self, File},
    io::{self, IoSliceMut},
    os::unix::fs::FileExt as _,
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
    File::open(process.exe())?.read_exact_at(&mut in_file, file_offset)?;
    let remote = RemoteIoVec { base: usize::try_from(address).unwrap_or(usize::MAX), len: BYTES };
    let pid = Pid::from_raw(process.id.pid as i32);
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut in_memory)], &[remote])?;
    if read == BYTES { Ok(in_file != in_memory) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Where the process has this part of its executable as code.
fn address_of(process: &Process, file_offset: u64) -> io::Result<u64> {
    let pid = process.id.pid;
    let executable = fs::read_link(process.exe())?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let found = maps.lines().find_map(|line| address_in(line, &executable.to_string_lossy(), file_offset));
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// A line of /proc/PID/maps is `START-END PERMISSIONS OFFSET DEVICE INODE   PATH` (proc_pid_maps(5)).
fn address_in(line: &str, executable: &str, file_offset: u64) -> Option<u64> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let executes = fields.next()?.contains('x');
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let path = fields.nth(2)?.trim_start();
    let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
    let within = file_offset.checked_sub(offset).filter(|within| *within < end - start)?;
    (executes && path == executable).then_some(start + within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_the_mapping_of_code() {
        let line = "55d245918000-55d24591d000 r-xp 00002000 00:27 10019098                   /srv/my app";
        assert_eq!(address_in(line, "/srv/my app", 0x2010), Some(0x55d2_4591_8010));
        assert_eq!(address_in(line, "/srv/my app", 0x1fff), None);
        assert_eq!(address_in(line, "/srv/my app", 0x7000), None);
        assert_eq!(address_in(line, "/srv/other", 0x2010), None);
        assert_eq!(address_in(&line.replace("r-xp", "r--p"), "/srv/my app", 0x2010), None);
        assert_eq!(address_in("", "", 0), None);
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
