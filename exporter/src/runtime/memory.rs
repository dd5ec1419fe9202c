//! Another process's memory, read in bounded pieces by `process_vm_readv`: nothing is written, nothing is stopped. Knows
//! nothing of Go. How many reads a look takes is up to what the process says, so a look has a limit of CPU time; a single read
//! may still never return (userfaultfd, FUSE), which is for the caller to provide for.

use std::{
    io::{self, IoSliceMut},
    time::Duration,
};

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

/// Ranges that one call may name (Linux: `UIO_MAXIOV`).
const MAX_RANGES: usize = 1024;

/// A range of another process's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) address: u64,
    pub(super) len: usize,
}

/// The memory of whatever process has this id now: who reads must check that it is still the one that is meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pid: Pid,
    /// CPU time of the calling thread past which reads fail.
    until: Duration,
}

impl Memory {
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        Ok(Self { pid: Pid::from_raw(pid), until: Duration::MAX })
    }

    /// The same memory for one look by this thread: reads fail with `TimedOut` once it has spent so much CPU time. Time
    /// in which the machine does something else does not count.
    pub(super) fn within(self, time: Duration) -> Self {
        Self { until: thread_time().saturating_add(time), ..self }
    }

    fn in_time(self) -> io::Result<()> {
        if thread_time() > self.until { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// Reads all ranges, one behind the other. Fails unless every byte could be read.
    pub(super) fn read(self, ranges: &[Range], out: &mut Vec<u8>) -> io::Result<()> {
        self.in_time()?;
        out.clear();
        out.resize(ranges.iter().map(|range| range.len).sum(), 0);
        let mut rest = &mut out[..];
        for some in ranges.chunks(MAX_RANGES) {
            let len = some.iter().map(|range| range.len).sum();
            let (piece, behind) = rest.split_at_mut(len);
            rest = behind;
            let remote: Vec<_> =
                some.iter().map(|range| RemoteIoVec { base: range.address as usize, len: range.len }).collect();
            if len > 0 && process_vm_readv(self.pid, &mut [IoSliceMut::new(piece)], &remote)? != len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Reads one range.
    pub(super) fn read_at(self, address: u64, out: &mut [u8]) -> io::Result<()> {
        self.in_time()?;
        let remote = [RemoteIoVec { base: address as usize, len: out.len() }];
        let len = out.len();
        if process_vm_readv(self.pid, &mut [IoSliceMut::new(out)], &remote)? == len {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// The 8-byte word at an offset; 0 past the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_ne_bytes(*word))
}

/// The 4-byte word at an offset; 0 past the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_ends_when_its_time_is_spent() {
        let word = 7_u64;
        let range = [Range { address: &raw const word as u64, len: 8 }];
        let memory = Memory::of(std::process::id()).unwrap();
        let mut bytes = Vec::new();
        memory.read(&range, &mut bytes).unwrap();
        assert_eq!(u64_at(&bytes, 0), 7);
        // However often a program makes it read: here without end.
        let look = memory.within(Duration::from_millis(1));
        let error = loop {
            if let Err(error) = look.read(&range, &mut bytes) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(look.read_at(range[0].address, &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        memory.read(&range, &mut bytes).unwrap();
    }
}
