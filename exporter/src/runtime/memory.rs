//! Another process's memory, read in bounded pieces by `process_vm_readv`: nothing is written, nothing is stopped. Knows
//! nothing of Go.

use std::io::{self, IoSliceMut};

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
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
pub(super) struct Memory(Pid);

impl Memory {
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        i32::try_from(pid).map(|pid| Self(Pid::from_raw(pid))).map_err(io::Error::other)
    }

    /// Reads all ranges, one behind the other. Fails unless every byte could be read.
    pub(super) fn read(self, ranges: &[Range], out: &mut Vec<u8>) -> io::Result<()> {
        out.clear();
        out.resize(ranges.iter().map(|range| range.len).sum(), 0);
        let mut rest = &mut out[..];
        for some in ranges.chunks(MAX_RANGES) {
            let len = some.iter().map(|range| range.len).sum();
            let (piece, behind) = rest.split_at_mut(len);
            rest = behind;
            let remote: Vec<_> =
                some.iter().map(|range| RemoteIoVec { base: range.address as usize, len: range.len }).collect();
            if len > 0 && process_vm_readv(self.0, &mut [IoSliceMut::new(piece)], &remote)? != len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Reads one range.
    pub(super) fn read_at(self, address: u64, out: &mut [u8]) -> io::Result<()> {
        let remote = [RemoteIoVec { base: address as usize, len: out.len() }];
        let len = out.len();
        if process_vm_readv(self.0, &mut [IoSliceMut::new(out)], &remote)? == len {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// The 8-byte word at an offset; 0 past the end.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u64::from_ne_bytes(*word))
}

/// The 4-byte word at an offset; 0 past the end.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word))
}
