//! The runtime's processors (`runtime.p`) and threads (`runtime.m`): what they count each for itself, and what they run.

use std::io;

use super::{
    memory::{Memory, Range, u32_at, u64_at},
    plan::Offsets,
};

/// Processors read at most: more than any machine has.
const MAX_PROCESSORS: u64 = 4096;
/// Threads read at most; Go itself ends a program with more than 10,000 (runtime/proc.go, `maxmcount`).
const MAX_THREADS: usize = 10_000;

/// Sums over the processors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Processors {
    /// Dead goroutines kept for new ones.
    pub(super) free: u64,
    pub(super) created: u64,
    pub(super) cleanups: u64,
    /// In Go code.
    pub(super) running: u64,
    /// In the queues.
    pub(super) runnable: u64,
    /// In system calls with their processor.
    pub(super) not_in_go: u64,
}

/// Sums over the threads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Threads {
    pub(super) count: u64,
    pub(super) lock_wait_ns: u64,
    pub(super) cgo_calls: u64,
    /// In system calls without a processor.
    pub(super) not_in_go: u64,
}

/// States of a processor and of a goroutine (runtime/runtime2.go).
const P_RUNNING: u32 = 1;
const P_SYSCALL: u32 = 2;
const P_DEAD: u32 = 4;
const G_SYSCALL: u32 = 3;
const STATUS: u32 = !0x1000;

/// Reads fields of several structs at once: a range for each field of each struct.
fn fields(memory: Memory, bases: &[u64], at: &[(Option<u32>, usize)], out: &mut Vec<u8>) -> io::Result<()> {
    let ranges: Vec<Range> = bases
        .iter()
        .flat_map(|base| {
            at.iter().filter_map(|(offset, len)| {
                offset.map(|offset| Range { address: base.wrapping_add(u64::from(offset)), len: *len })
            })
        })
        .collect();
    memory.read(&ranges, out)
}

/// Takes the fields out again, in their order; what has no offset is 0.
struct Taken<'b>(&'b [u8]);

impl Taken<'_> {
    fn next(&mut self, offset: Option<u32>, len: usize) -> u64 {
        if offset.is_none() {
            return 0;
        }
        let value = if len == 4 { u64::from(u32_at(self.0, 0)) } else { u64_at(self.0, 0) };
        self.0 = self.0.get(len..).unwrap_or_default();
        value
    }
}

/// Reads the processors of `runtime.allp`, `InvalidData` where there cannot be so many, as `schedStatsAggregate.compute` does (runtime/metrics.go, Go 1.26).
pub(super) fn processors(memory: Memory, at: &Offsets, allp: u64, len: u64) -> io::Result<Processors> {
    let mut sums = Processors::default();
    if len == 0 {
        return Ok(sums);
    }
    if len > MAX_PROCESSORS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = Vec::new();
    memory.read(&[Range { address: allp, len: len as usize * 8 }], &mut bytes)?;
    let bases: Vec<u64> = bytes.chunks_exact(8).map(|word| u64_at(word, 0)).take_while(|p| *p != 0).collect();
    let wanted = [
        (at.p_status, 4),
        (at.p_m, 8),
        (at.p_runqhead, 4),
        (at.p_runqtail, 4),
        (at.p_runnext, 8),
        (at.p_gfree, 4),
        (at.p_created, 8),
        (at.p_cleanups, 8),
    ];
    fields(memory, &bases, &wanted, &mut bytes)?;
    let mut taken = Taken(&bytes);
    let mut with_thread = Vec::new();
    for _ in &bases {
        let [status, m, head, tail, next, free, created, cleanups] = wanted.map(|(at, len)| taken.next(at, len));
        if status == u64::from(P_DEAD) {
            break;
        }
        match status as u32 {
            P_RUNNING => {
                sums.running += 1;
                if m != 0 {
                    with_thread.push(m);
                }
            }
            P_SYSCALL => sums.not_in_go += 1,
            _ => {}
        }
        // The head may pass the tail between two reads.
        let queued = i64::from((tail as u32).wrapping_sub(head as u32) as i32).max(0) as u64;
        sums.runnable += queued.min(256) + u64::from(next != 0);
        sums.free += free & u64::from(u32::MAX);
        sums.created = sums.created.wrapping_add(created);
        sums.cleanups = sums.cleanups.wrapping_add(cleanups);
    }
    // From Go 1.26 on a processor in a system call says that it runs.
    if let Ok(statuses) = statuses_of(memory, at, &with_thread) {
        let in_syscall = statuses.iter().filter(|status| **status & STATUS == G_SYSCALL).count() as u64;
        sums.running -= in_syscall;
        sums.not_in_go += in_syscall;
    }
    Ok(sums)
}

/// The status of the goroutine that each of these threads runs, of those that run one.
fn statuses_of(memory: Memory, at: &Offsets, threads: &[u64]) -> io::Result<Vec<u32>> {
    let mut bytes = Vec::new();
    fields(memory, threads, &[(at.m_curg, 8)], &mut bytes)?;
    let goroutines: Vec<u64> = bytes.chunks_exact(8).map(|word| u64_at(word, 0)).filter(|g| *g != 0).collect();
    statuses(memory, at, &goroutines)
}

fn statuses(memory: Memory, at: &Offsets, goroutines: &[u64]) -> io::Result<Vec<u32>> {
    let mut bytes = Vec::new();
    fields(memory, goroutines, &[(at.g_status, 4)], &mut bytes)?;
    Ok(bytes.chunks_exact(4).map(|word| u32_at(word, 0)).collect())
}

/// Walks the list of threads from `runtime.allm`. `known` is the list of the last time: where it still holds, it is read at
/// once and not link by link. None for a list that does not end.
pub(super) fn threads(memory: Memory, at: &Offsets, allm: u64, known: &mut Vec<u64>) -> io::Result<Option<Threads>> {
    let Some(link) = at.m_alllink else { return Ok(None) };
    let wanted = [(Some(link), 8), (at.m_lock_wait, 8), (at.m_ncgocall, 8), (at.m_p, 8), (at.m_curg, 8)];
    let mut bytes = Vec::new();
    let mut rows: Vec<[u64; 5]> = Vec::new();
    if known.first() == Some(&allm) {
        fields(memory, known, &wanted, &mut bytes)?;
        let mut taken = Taken(&bytes);
        rows.extend(known.iter().map(|_| wanted.map(|(at, len)| taken.next(at, len))));
        let linked = rows.iter().zip(known[1..].iter().chain(&[0])).all(|(row, next)| row[0] == *next);
        if !linked {
            rows.clear();
        }
    }
    if rows.is_empty() {
        known.clear();
        let mut m = allm;
        while m != 0 {
            if known.len() >= MAX_THREADS {
                known.clear();
                return Ok(None);
            }
            fields(memory, &[m], &wanted, &mut bytes)?;
            let mut taken = Taken(&bytes);
            let row = wanted.map(|(at, len)| taken.next(at, len));
            known.push(m);
            m = row[0];
            rows.push(row);
        }
    }
    let mut sums = Threads { count: rows.len() as u64, ..Threads::default() };
    let mut without_processor = Vec::new();
    for [_, lock_wait, calls, p, curg] in rows {
        sums.lock_wait_ns = sums.lock_wait_ns.wrapping_add(lock_wait);
        sums.cgo_calls = sums.cgo_calls.wrapping_add(calls);
        if p == 0 && curg != 0 {
            without_processor.push(curg);
        }
    }
    let statuses = statuses(memory, at, &without_processor)?;
    sums.not_in_go = statuses.iter().filter(|status| **status & STATUS == G_SYSCALL).count() as u64;
    Ok(Some(sums))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Links of a list that a hostile program would have, in this process's own memory.
    fn list(lens: usize, back_to: Option<usize>) -> Vec<u64> {
        let mut links = vec![0_u64; lens];
        let at = |links: &[u64], i: usize| &raw const links[i] as u64;
        for i in 1..lens {
            links[i - 1] = at(&links, i);
        }
        if let Some(back) = back_to {
            links[lens - 1] = at(&links, back);
        }
        links
    }

    #[test]
    fn a_list_of_threads_that_does_not_end_is_no_list() {
        let at = Offsets { m_alllink: Some(0), ..Offsets::default() };
        let memory = Memory::of(std::process::id()).unwrap();
        let first = |links: &[u64]| links.as_ptr() as u64;
        let mut known = Vec::new();
        let (ends, turns) = (list(3, None), list(3, Some(1)));
        assert_eq!(threads(memory, &at, first(&ends), &mut known).unwrap().unwrap().count, 3);
        assert_eq!(
            threads(memory, &at, first(&ends), &mut known).unwrap().unwrap().count,
            3,
            "by the list that is known"
        );
        assert!(threads(memory, &at, first(&turns), &mut known).unwrap().is_none());
        let error = threads(memory.within(Duration::ZERO), &at, first(&turns), &mut known).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = processors(memory, &at, first(&ends), 1 << 40).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
