//! Whether a process runs the code that is in its file, as one does not that has replaced functions of its own in memory. The kernel
//! takes the instruction under a probe from the file: where the process has another there, it dies of the probe. Knows nothing of
//! what is done about it.

use std::{
    fmt,
    fs::{self, File},
    io::{self, IoSliceMut},
    os::unix::fs::FileExt as _,
};

use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use super::{Process, code::pieces, probed::as_in_maps};

/// How code in memory is another than the file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patched {
    /// It has other bytes.
    Changed,
    /// The process can write it, as while functions are being replaced.
    Writable,
}

impl fmt::Display for Patched {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Changed => "the program has changed the code",
            Self::Writable => "the program can write to the code",
        })
    }
}

/// Which spans of its executable (offset and length) a process does not run as they are in the file, wherever it has mapped them so
/// that the kernel puts probes there. Breakpoints are no difference: they are probes, or a debugger's. What is not mapped is not
/// told of: no probe gets there. Waits for the process's memory.
///
/// # Errors
/// `NotFound` or `InvalidData` where the process is gone or runs another executable; another kind where it cannot be read.
pub(crate) fn patched<T>(
    process: &Process,
    spans: impl IntoIterator<Item = ((u64, u64), T)>,
) -> io::Result<Vec<(T, Patched)>> {
    let file = process.open()?;
    let executable = as_in_maps(&fs::read_link(process.exe())?);
    let maps = super::told(process.id.pid, "maps")?;
    let mappings: Vec<Mapping> =
        maps.split(|byte| *byte == b'\n').filter_map(|line| Mapping::of(line, &executable)).collect();
    let mut found = Vec::new();
    for ((offset, length), what) in spans {
        let mut worst = None;
        for (offset, length) in pieces(offset, length) {
            for mapping in &mappings {
                worst = worst.or(mapping.patched(process, &file, offset, length)?);
            }
        }
        found.extend(worst.map(|patched| (what, patched)));
    }
    // It may have become another program meanwhile, whose memory was read.
    if found.is_empty() || process.is_there() { Ok(found) } else { Err(io::ErrorKind::NotFound.into()) }
}

/// A private mapping of the executable.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    offset: u64,
    length: u64,
    reads: bool,
    writes: bool,
    executes: bool,
}

impl Mapping {
    /// A line of /proc/PID/maps is `START-END PERMISSIONS OFFSET DEVICE INODE   PATH` (proc_pid_maps(5)). Probes get into private
    /// mappings that cannot be written, also into those that do not execute (`valid_vma` in kernel/events/uprobes.c): they could.
    fn of(line: &[u8], executable: &[u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let number = |digits: &[u8]| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        let mut range = fields.next()?.split(|byte| *byte == b'-');
        let (start, end) = (number(range.next()?)?, number(range.next()?)?);
        let permissions = fields.next()?;
        let offset = number(fields.next()?)?;
        let path = fields.nth(2)?.trim_ascii_start();
        let has = |permission| permissions.contains(&permission);
        let (reads, writes, executes) = (has(b'r'), has(b'w'), has(b'x'));
        // What can be written and does not execute is data.
        let may_be_code = has(b'p') && (executes || !writes);
        let length = end.checked_sub(start)?;
        (path == executable && may_be_code).then_some(Self { start, offset, length, reads, writes, executes })
    }

    /// Looks at the part of a span that is mapped here.
    fn patched(&self, process: &Process, file: &File, offset: u64, length: u64) -> io::Result<Option<Patched>> {
        let from = offset.max(self.offset);
        let until = (offset + length).min(self.offset.saturating_add(self.length));
        if from >= until || !(self.reads || self.executes) {
            return Ok(None);
        }
        if self.writes {
            return Ok(Some(Patched::Writable));
        }
        let mut in_file = vec![0; (until - from) as usize];
        let read = file.read_at(&mut in_file, from)?;
        in_file.truncate(read);
        let in_memory = read_memory(process, self.start + (from - self.offset), in_file.len())?;
        Ok(differ(&in_file, &in_memory).then_some(Patched::Changed))
    }
}

fn read_memory(process: &Process, address: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let base = usize::try_from(address).map_err(|_| io::ErrorKind::InvalidInput)?;
    let pid = Pid::from_raw(process.id.pid as i32);
    let read = match process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &[RemoteIoVec { base, len: length }]) {
        Err(Errno::ESRCH) => return Err(io::ErrorKind::NotFound.into()),
        read => read?,
    };
    if read == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// The nop of five bytes that the kernel makes a call of where it optimizes a probe (`arch_uprobe_optimize`, Linux 6.18).
const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
const CALL: u8 = 0xe8;
const INT3: u8 = 0xcc;

/// Whether code differs in more than breakpoints.
fn differ(in_file: &[u8], in_memory: &[u8]) -> bool {
    if in_file.len() != in_memory.len() {
        return true;
    }
    if cfg!(target_arch = "aarch64") { differ_arm64(in_file, in_memory) } else { differ_amd64(in_file, in_memory) }
}

fn differ_amd64(in_file: &[u8], in_memory: &[u8]) -> bool {
    let mut at = 0;
    while let (Some(was), Some(is)) = (in_file.get(at..), in_memory.get(at..))
        && let (Some(first), Some(now)) = (was.first(), is.first())
    {
        let optimized = was.starts_with(&NOP5) && matches!(*now, CALL | INT3);
        if !optimized && now != first && *now != INT3 {
            return true;
        }
        at += if optimized { NOP5.len() } else { 1 };
    }
    false
}

/// Functions begin at multiples of four; a breakpoint is `brk #n` (0xd4200000 with the number in bits 5 to 20).
fn differ_arm64(in_file: &[u8], in_memory: &[u8]) -> bool {
    let is_breakpoint = |word: &[u8]| {
        word.first_chunk::<4>().is_some_and(|word| u32::from_le_bytes(*word) & 0xffe0_001f == 0xd420_0000)
    };
    in_file.chunks(4).zip(in_memory.chunks(4)).any(|(was, is)| was != is && !is_breakpoint(is))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cmp 0x10(%r14),%rsp; jbe; push %rbp; mov %rsp,%rbp`, and a nop of five bytes.
    const ENTRY: [u8; 15] = [0x49, 0x3b, 0x66, 0x10, 0x76, 0x20, 0x55, 0x48, 0x89, 0xe5, 0x0f, 0x1f, 0x44, 0x00, 0x00];

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut code = ENTRY.to_vec();
        code[at..at + bytes.len()].copy_from_slice(bytes);
        code
    }

    #[test]
    fn breakpoints_and_optimized_probes_are_no_change_and_a_jump_is() {
        for same in [
            with(0, &[]),
            with(4, &[0xcc]),
            with(6, &[0xcc]),
            with(10, &[0xcc]),
            with(10, &[0xe8, 1, 2, 3, 4]),
            with(10, &[0xcc, 1, 2, 3, 4]),
        ] {
            assert!(!differ_amd64(&ENTRY, &same), "{same:x?}");
        }
        // As gomonkey writes it: mov $address,%rdx; jmp *(%rdx).
        let jump = with(0, &[0x48, 0xba, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0x22]);
        for changed in [jump, with(0, &[0xe9, 1, 2, 3, 4]), with(0, &[0xeb]), with(14, &[1])] {
            assert!(differ_amd64(&ENTRY, &changed), "{changed:x?}");
        }
        assert!(differ(&ENTRY, &ENTRY[1..]));
    }

    #[test]
    fn on_arm64_a_breakpoint_is_a_whole_instruction() {
        // ldr x16,[x28,#16]; cmp sp,x16; b.ls
        let code: Vec<u8> =
            [0xf940_0b90_u32, 0xeb30_63ff, 0x5400_0149].iter().flat_map(|it| it.to_le_bytes()).collect();
        let with = |at: usize, word: u32| {
            let mut code = code.clone();
            code[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
            code
        };
        for breakpoint in [0xd420_0000, 0xd420_00a0] {
            assert!(!differ_arm64(&code, &with(2, breakpoint)), "the kernel's and gdb's");
        }
        for other in [0xd61f_0340, 0xd420_0001, 0x1400_0001] {
            assert!(differ_arm64(&code, &with(0, other)), "{other:x}");
        }
    }

    #[test]
    fn mappings_that_probes_get_into_and_those_that_can_be_written_as_code() {
        let of = |permissions: &str| {
            let line = format!("401000-403000 {permissions} 00001000 08:01 7      /srv/app");
            Mapping::of(line.as_bytes(), b"/srv/app")
        };
        let code = of("r-xp").unwrap();
        assert_eq!((code.start, code.offset, code.length, code.writes), (0x40_1000, 0x1000, 0x2000, false));
        assert!(of("r--p").is_some(), "it could be made to execute");
        assert!(of("rwxp").unwrap().writes);
        assert_eq!(
            [of("rw-p"), of("r-xs"), Mapping::of(b"401000-403000 r-xp 0 08:01 7 /srv/b", b"/srv/app")],
            [const { None }; 3]
        );
    }

    #[test]
    fn this_process_runs_what_is_in_its_file() {
        let me = Process::find(std::process::id()).unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let executable = me.executable.to_string_lossy().into_owned();
        let code = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with(&executable)).unwrap();
        let offset = u64::from_str_radix(code.split(' ').nth(2).unwrap(), 16).unwrap();
        assert_eq!(patched(&me, [((offset, 4096), ()), ((offset, 200_000), ()), ((1 << 60, 16), ())]).unwrap(), []);
        let gone = Process { id: super::super::ProcessId { pid: u32::MAX, ..me.id }, ..me };
        assert_eq!(patched(&gone, [((offset, 16), ())]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
