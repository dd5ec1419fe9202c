//! A walk over `runtime.allgs`: what goroutines wait for, and since when. Bounded: in chunks, and of very many goroutines only
//! every so many are looked at.

use std::{collections::BTreeMap, io};

use instruments::blocking::reason;

use super::{
    figures::{Goroutines, Waiting},
    memory::{Memory, Range, u32_at, u64_at},
    plan::Plan,
};

/// Goroutines looked at in one walk, at most.
const MAX_LOOKS: u64 = 1 << 17;
/// Goroutines read at one time: 1,024 of them lie in about half a megabyte.
const CHUNK: u64 = 1024;
/// Goroutines closer than this are read in one piece: the allocator puts them side by side.
const GAP: u64 = 1024;
/// The longest piece read at one time.
const MAX_PIECE: u64 = 64 * 1024;

/// Where a process's memory can be; other words are no pointers to goroutines.
const ADDRESSES: std::ops::Range<u64> = 4096..1 << 56;

/// Bits of a status (runtime/runtime2.go).
const STATUS: u32 = !0x1000;
const WAITING: u32 = 4;

/// Buffers that one walk hands to the next.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pointers: Vec<u8>,
    bytes: Vec<u8>,
    ranges: Vec<Range>,
    /// Range and offset of each goroutine of a chunk.
    found: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Default)]
struct Waiters {
    count: u64,
    /// The earliest time, nanoseconds of the monotonic clock, at which a collection found one waiting.
    since: Option<u64>,
}

/// Parts of the array of goroutines that a walk reads: place of the first and how many. Of very many goroutines every
/// so-many-th part, since those read together lie together. However many a program says it has, the parts are few.
fn parts(allglen: u64) -> impl Iterator<Item = (u64, u64)> {
    let step = allglen.div_ceil(MAX_LOOKS).max(1).saturating_mul(CHUNK);
    let first = (allglen > 0).then_some(0_u64);
    std::iter::successors(first, move |at: &u64| at.checked_add(step).filter(|at| *at < allglen))
        .map(move |at| (at, CHUNK.min(allglen - at)))
}

/// Walks over the goroutines. `now` is the monotonic clock's time in nanoseconds, as Go's nanotime. Where `memory`'s time is
/// spent before the end, what was seen until then stands for all.
pub(super) fn walk(
    memory: Memory,
    plan: &Plan,
    allgptr: u64,
    allglen: u64,
    now: u64,
    scratch: &mut Scratch,
) -> io::Result<Option<Goroutines>> {
    let Some(fields) = Fields::of(plan) else { return Ok(None) };
    let mut waiters: BTreeMap<u8, Waiters> = BTreeMap::new();
    let mut looked = 0;
    for (at, some) in parts(allglen) {
        let array = Range { address: allgptr.wrapping_add(at * 8), len: some as usize * 8 };
        match look(memory, array, &fields, now, scratch, &mut waiters) {
            Ok(()) => looked += some,
            Err(error) if error.kind() == io::ErrorKind::TimedOut && looked > 0 => break,
            Err(error) => return Err(error),
        }
    }
    let scale = |count: u64| {
        if looked == 0 { 0 } else { (u128::from(count) * u128::from(allglen) / u128::from(looked)) as u64 }
    };
    let mut all: Vec<Waiting> = Vec::new();
    for (number, it) in waiters {
        let reason = reason(plan.minor, number).unwrap_or("unknown");
        let oldest_seconds = it.since.map(|since| (now - since) as f64 / 1e9);
        match all.iter_mut().find(|known| known.reason == reason) {
            Some(known) => {
                known.count += scale(it.count);
                known.oldest_seconds = match (known.oldest_seconds, oldest_seconds) {
                    (Some(one), Some(other)) => Some(one.max(other)),
                    (one, other) => one.or(other),
                };
            }
            None => all.push(Waiting { reason, count: scale(it.count), oldest_seconds }),
        }
    }
    let looked_at = if allglen == 0 { 1.0 } else { looked as f64 / allglen as f64 };
    Ok(Some(Goroutines { waiting: all, looked_at }))
}

/// What is read of a goroutine: offsets of its fields, and of the first and behind the last byte of them.
struct Fields {
    status: u32,
    why: u32,
    since: u32,
    first: u64,
    last: u64,
}

impl Fields {
    fn of(plan: &Plan) -> Option<Self> {
        let at = &plan.offsets;
        let (status, why, since) = (at.g_status?, at.g_waitreason?, at.g_waitsince?);
        let first = u64::from(status.min(why).min(since));
        let last = u64::from((status + 4).max(why + 1).max(since + 8));
        Some(Self { status, why, since, first, last })
    }
}

/// Looks at one part of the goroutines.
fn look(
    memory: Memory,
    array: Range,
    fields: &Fields,
    now: u64,
    scratch: &mut Scratch,
    waiters: &mut BTreeMap<u8, Waiters>,
) -> io::Result<()> {
    memory.read(&[array], &mut scratch.pointers)?;
    pieces(scratch, fields.first, fields.last);
    memory.read(&scratch.ranges, &mut scratch.bytes)?;
    let mut starts = Vec::with_capacity(scratch.ranges.len());
    let mut start = 0;
    for range in &scratch.ranges {
        starts.push(start);
        start += range.len;
    }
    for (range, offset) in &scratch.found {
        let g = &scratch.bytes[starts[*range as usize] + *offset as usize..];
        let field = |at: u32| (u64::from(at) - fields.first) as usize;
        if u32_at(g, field(fields.status)) & STATUS != WAITING {
            continue;
        }
        let it = waiters.entry(g.get(field(fields.why)).copied().unwrap_or(0)).or_default();
        it.count += 1;
        let began = u64_at(g, field(fields.since));
        if began != 0 && began <= now {
            it.since = Some(it.since.map_or(began, |other| other.min(began)));
        }
    }
    Ok(())
}

/// Makes few ranges of a chunk's goroutines.
fn pieces(scratch: &mut Scratch, first: u64, last: u64) {
    let Scratch { pointers, ranges, found, .. } = scratch;
    let mut all: Vec<u64> =
        pointers.chunks_exact(8).map(|word| u64_at(word, 0)).filter(|g| ADDRESSES.contains(g)).collect();
    all.sort_unstable();
    ranges.clear();
    found.clear();
    for g in all {
        let (start, end) = (g.wrapping_add(first), g.wrapping_add(last));
        match ranges.last_mut() {
            Some(piece)
                if start >= piece.address
                    && start <= piece.address + piece.len as u64 + GAP
                    && end - piece.address <= MAX_PIECE =>
            {
                piece.len = piece.len.max((end - piece.address) as usize);
            }
            _ => ranges.push(Range { address: start, len: (last - first) as usize }),
        }
        let piece = ranges[ranges.len() - 1];
        found.push((ranges.len() as u32 - 1, (start - piece.address) as u32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_has_few_parts_whatever_a_program_says() {
        let all = |len: u64| parts(len).collect::<Vec<_>>();
        assert_eq!(all(0), []);
        assert_eq!(all(CHUNK + 1), [(0, CHUNK), (CHUNK, 1)]);
        assert_eq!(all(MAX_LOOKS).iter().map(|(_, some)| some).sum::<u64>(), MAX_LOOKS);
        // Twice as many: every other part.
        assert_eq!(all(2 * MAX_LOOKS)[1], (2 * CHUNK, CHUNK));
        for len in [MAX_LOOKS + 1, 1 << 32, 1 << 62, u64::MAX] {
            let parts = parts(len).take(10_000).collect::<Vec<_>>();
            assert!(parts.len() as u64 <= MAX_LOOKS.div_ceil(CHUNK), "{len}: {}", parts.len());
            assert!(parts.iter().all(|(at, some)| *some > 0 && at + some <= len));
        }
    }

    #[test]
    fn neighbours_are_read_together_and_nonsense_does_no_harm() {
        let gs = [0x1000u64, 0x1480, 0x9000, 0, u64::MAX - 4, 0x1240, 7];
        let mut scratch = Scratch { pointers: gs.iter().flat_map(|g| g.to_ne_bytes()).collect(), ..Scratch::default() };
        pieces(&mut scratch, 144, 185);
        assert_eq!(scratch.found.len(), 4);
        assert_eq!(scratch.ranges[0], Range { address: 0x1000 + 144, len: 0x480 + 41 });
        assert_eq!(scratch.ranges[1], Range { address: 0x9000 + 144, len: 41 });
        assert_eq!(scratch.ranges.len(), 2);
    }
}
