//! What the structs of goroutines say, read from a program's memory. Knows nothing of what they serve.

use std::io::{self, IoSliceMut};

use exporter_ebpf::target::NONE;
use nix::{
    errno::Errno,
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use crate::target::Inspection;

/// Goroutines of one system call, which takes two places of each: half of what it takes (include/uapi/linux/uio.h: UIO_MAXIOV).
const AT_ONCE: usize = 512;
/// Bytes of a goroutine's id and status.
const BYTES: usize = 12;

/// Where a `runtime.g` has what is read of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    goid: u64,
    status: u64,
}

/// What is at the address of a `runtime.g`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Goroutine {
    pub(super) goid: u64,
    /// Nothing runs there: idle (0) or dead (6) (runtime/runtime2.go; the bit 0x1000 of a status is the garbage collector's).
    pub(super) is_dead: bool,
}

impl Layout {
    /// That of a program, where it is known.
    pub(super) fn of(inspection: &Inspection) -> Option<Self> {
        let (goid, status) = (inspection.config.g_goid, inspection.g_status);
        (goid != NONE && status != NONE).then(|| Self { goid: u64::from(goid), status: u64::from(status) })
    }
}

/// What is at each address, in their order; none where the program has no memory there.
///
/// # Errors
/// Nothing of the process can be read, as once it has ended.
pub(super) fn read(pid: u32, layout: Layout, addresses: &[u64]) -> io::Result<Vec<Option<Goroutine>>> {
    let pid = Pid::from_raw(i32::try_from(pid).map_err(io::Error::other)?);
    let mut all = Vec::with_capacity(addresses.len());
    while all.len() < addresses.len() {
        let left = &addresses[all.len()..];
        let remote: Vec<RemoteIoVec> =
            left.iter().take(AT_ONCE).flat_map(|g| [place(*g, layout.goid, 8), place(*g, layout.status, 4)]).collect();
        let mut bytes = vec![0; remote.len() / 2 * BYTES];
        let read = match process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &remote) {
            Ok(read) => read,
            Err(Errno::EFAULT) => 0,
            Err(error) => return Err(error.into()),
        };
        let (found, _) = bytes[..read].as_chunks::<BYTES>();
        all.extend(found.iter().map(|bytes| Some(goroutine(bytes))));
        if found.is_empty() {
            // The first of them is what stopped it: the others are read without it.
            all.push(None);
        }
    }
    Ok(all)
}

fn place(g: u64, offset: u64, len: usize) -> RemoteIoVec {
    RemoteIoVec { base: g.wrapping_add(offset) as usize, len }
}

fn goroutine(bytes: &[u8; BYTES]) -> Goroutine {
    let [goid @ .., a, b, c, d] = *bytes;
    Goroutine { goid: u64::from_ne_bytes(goid), is_dead: matches!(u32::from_ne_bytes([a, b, c, d]) & !0x1000, 0 | 6) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    struct G {
        status: u32,
        goid: u64,
    }

    const LAYOUT: Layout = Layout { goid: 8, status: 0 };

    #[test]
    fn one_that_is_not_there_costs_no_other() {
        let of = |status, goid| G { status, goid };
        let all: Vec<G> = (0..2000).map(|goid| of(if goid % 2 == 0 { 4 } else { 6 }, goid)).collect();
        let mut addresses: Vec<u64> = all.iter().map(|g| std::ptr::from_ref(g) as u64).collect();
        for nowhere in [0, 600, 601, 1999] {
            addresses[nowhere] = 16;
        }
        let found = read(std::process::id(), LAYOUT, &addresses).expect("this process can be read");
        assert_eq!(found.len(), 2000);
        for (goid, found) in found.iter().enumerate() {
            let wanted = Goroutine { goid: goid as u64, is_dead: goid % 2 == 1 };
            assert_eq!(*found, (!matches!(goid, 0 | 600 | 601 | 1999)).then_some(wanted));
        }
    }

    #[test]
    fn who_is_dead() {
        let is_dead = |status| {
            let g = G { status, goid: 1 };
            let found = read(std::process::id(), LAYOUT, &[&raw const g as u64]).expect("this process can be read");
            found[0].expect("it is there").is_dead
        };
        assert!([0, 6, 0x1006].into_iter().all(is_dead));
        // Runnable, running, in a system call, waiting, its stack being copied, preempted; scanned while it waits.
        assert!(![1, 2, 3, 4, 8, 9, 0x1004].into_iter().any(is_dead));
    }

    #[test]
    fn a_process_that_is_gone_is_told_apart() {
        assert!(read(u32::MAX >> 1, LAYOUT, &[16]).is_err());
    }
}
