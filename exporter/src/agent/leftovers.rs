//! Waits that began while the probes were attached and had not ended when they were detached: dropping them would lose the
//! long ones. They are followed by reading the goroutines' own state, ever less often: the time at which a wait ended is known
//! to a tenth of its length.

use std::{
    io::IoSliceMut,
    time::{Duration, Instant},
};

use exporter_ebpf::http::{goroutine_key, goroutine_key_g, goroutine_key_target};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use super::Agent;

/// Most waits that are followed of one window of one target; of more, every so-many-th is, and counts for the others.
const MOST: usize = 512;
/// Waits longer than this are followed no more, and not counted: they are what never ends.
const LONGEST: Duration = Duration::from_mins(10);

/// One wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leftover {
    id: u32,
    pid: u32,
    /// Where its `trackingSeq` and `atomicstatus` are.
    at: (u64, u64),
    /// The former when it was seen waiting: the runtime adds one each time the goroutine stops running.
    seq: u8,
    reason: u16,
    start_ns: u64,
    /// How many waits it stands for.
    weight: f64,
}

/// Takes the waits of these targets that began within the window and go on, out of the kernel's map. The probes must still be
/// attached: that a wait is in the map after its goroutine was read shows that both are of the same wait.
pub(super) fn take(agent: &Agent, users: &[(u32, u32)], from: u64, until: u64) -> Vec<Leftover> {
    let parked = &agent.inner.kernel.maps().parked;
    let mut entries = Vec::new();
    parked.for_each(|key, entry| {
        let id = goroutine_key_target(*key);
        if users.iter().any(|(user, _)| *user == id) && entry.start_ns != 0 {
            entries.push((*key, *entry));
        }
    });
    let mut left = Vec::new();
    for &(id, pid) in users {
        let Some((seq, status)) = ({
            let state = agent.state();
            state
                .targets
                .get(&id)
                .and_then(|target| target.inspection.as_deref())
                .map(|it| (it.g_tracking_seq, it.g_status))
        }) else {
            continue;
        };
        let mine: Vec<_> = entries.iter().filter(|(key, _)| goroutine_key_target(*key) == id).collect();
        let step = mine.len().div_ceil(MOST).max(1);
        let known = seq != exporter_ebpf::target::NONE && status != exporter_ebpf::target::NONE;
        for (i, (key, entry)) in mine.into_iter().enumerate() {
            let within = (from..until).contains(&entry.start_ns);
            if known && within && i % step == 0 {
                let g = goroutine_key_g(*key);
                let at = (g + u64::from(seq), g + u64::from(status));
                let seen = read(pid, &[at]).and_then(|seen| seen.first().copied());
                let same = parked.get(key).is_some_and(|now| now.start_ns == entry.start_ns);
                if let Some((seq, _)) = seen.filter(|_| same) {
                    let (reason, start_ns) = (entry.reason as u16, entry.start_ns);
                    left.push(Leftover { id, pid, at, seq, reason, start_ns, weight: step as f64 });
                }
            }
        }
    }
    // No probe will see these end; with their starts in the map, a later window would.
    for (key, _) in entries {
        parked.remove(&goroutine_key(goroutine_key_target(key), goroutine_key_g(key)));
    }
    left
}

/// Follows waits until they end; each then counts `scale` times its weight.
pub(super) fn follow(agent: &Agent, mut left: Vec<Leftover>, scale: f64) {
    if left.is_empty() {
        return;
    }
    let agent = agent.clone();
    tokio::spawn(async move {
        let mut looked = monotonic();
        while !left.is_empty() {
            let youngest = left.iter().map(|it| looked.saturating_sub(it.start_ns)).min().unwrap_or(0);
            let wait = Duration::from_nanos(youngest / 10).clamp(Duration::from_millis(5), Duration::from_secs(30));
            tokio::time::sleep(wait).await;
            let now = monotonic();
            let mut still = Vec::with_capacity(left.len());
            for of_one in left.chunk_by(|a, b| a.pid == b.pid) {
                let places: Vec<_> = of_one.iter().map(|it| it.at).collect();
                let Some(seen) = read(of_one[0].pid, &places) else { continue };
                let mut state = agent.state();
                let target = state.targets.get_mut(&of_one[0].id);
                let Some(target) = target.filter(|target| target.process.id.pid == of_one[0].pid) else { continue };
                for (it, (seq, status)) in of_one.iter().zip(seen) {
                    // Waiting, or made runnable and not run yet (runtime/runtime2.go; 0x1000 is the collector's bit).
                    if seq == it.seq && matches!(status & !0x1000, 1 | 4) {
                        if Duration::from_nanos(now.saturating_sub(it.start_ns)) < LONGEST {
                            still.push(*it);
                        }
                        continue;
                    }
                    let middle = looked + (now - looked) / 2;
                    let duration_ns = middle.saturating_sub(it.start_ns);
                    target.blocked.ended(it.reason, duration_ns, it.weight * scale);
                }
            }
            left = still;
            looked = now;
        }
    });
}

/// Nanoseconds of the clock that the kernel side uses.
fn monotonic() -> u64 {
    super::blocking::monotonic_ns()
}

/// The byte and the word at these places of a process's memory; none where they cannot be read.
fn read(pid: u32, places: &[(u64, u64)]) -> Option<Vec<(u8, u32)>> {
    let began = Instant::now();
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    let mut all = Vec::with_capacity(places.len());
    for chunk in places.chunks(MOST) {
        let mut bytes = vec![0_u8; chunk.len() * 5];
        let remote: Vec<RemoteIoVec> = chunk
            .iter()
            .flat_map(|(seq, status)| {
                [RemoteIoVec { base: *seq as usize, len: 1 }, RemoteIoVec { base: *status as usize, len: 4 }]
            })
            .collect();
        let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &remote).ok()?;
        if read != bytes.len() {
            return None;
        }
        let (values, _) = bytes.as_chunks::<5>();
        all.extend(values.iter().map(|it| (it[0], u32::from_ne_bytes([it[1], it[2], it[3], it[4]]))));
    }
    tracing::trace!(waits = places.len(), took = ?began.elapsed(), "looked at goroutines");
    Some(all)
}
