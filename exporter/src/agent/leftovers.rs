//! Waits that began while the probes were attached and had not ended when they were detached: dropping them would lose the
//! long ones. They are followed by reading the goroutines' own state, ever less often: the time at which a wait ended is known
//! to a tenth of its length.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::IoSliceMut,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use exporter_ebpf::{
    key::{address_of, target_of},
    loss::Reason,
    target::NONE,
    wait::Parked,
};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use tokio::task::spawn_blocking;

use super::Agent;
use crate::clock::monotonic_ns;

/// Most waits that are followed of one window of one target; of more, every so-many-th is, and counts for the others.
const MOST: usize = 512;
/// Waits longer than this are followed no more, and told as lost: most of them never end.
const LONGEST: Duration = Duration::from_mins(10);

/// How long one target's memory is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

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
pub(super) async fn take(agent: &Agent, users: &[(u32, u32)], from: u64, until: u64) -> Vec<Leftover> {
    let of = agent.clone();
    let read = move |ids: &HashSet<u32>| {
        of.inner.kernel.maps().parked.read(|waits: &mut HashMap<u32, Vec<(u64, Parked)>>, key, entry| {
            let id = target_of(*key);
            if entry.start_ns != 0 && ids.contains(&id) {
                waits.entry(id).or_default().push((*key, *entry));
            }
        })
    };
    let Some(waits) = agent.inner.waiting.ask(users.iter().map(|(id, _)| *id).collect(), read).await else {
        return Vec::new();
    };
    let mut left = Vec::new();
    for &(id, pid) in users {
        let within = |start: u64| (from..until).contains(&start);
        let of_it = waits.get(&id).into_iter().flatten();
        let mine: Vec<_> = of_it.filter(|(_, entry)| within(entry.start_ns)).copied().collect();
        if mine.is_empty() {
            continue;
        }
        let all = mine.len() as u64;
        let of = agent.clone();
        let looked = agent.ask_memory(id, move || of.look_at(id, pid, &mine));
        // Its memory may never answer; the others' probes are to be detached.
        let (seen, lost) = match tokio::time::timeout(PATIENCE, looked).await {
            Ok(Some(looked)) => looked,
            Ok(None) | Err(_) => (Vec::new(), all),
        };
        left.extend(seen);
        if lost > 0 {
            agent.lose_if_there(id, pid, lost).await;
        }
    }
    // No probe will see these end; with their starts in the map, a later window would.
    if !waits.is_empty() {
        let of = agent.clone();
        let keys = move || of.inner.kernel.maps().parked.remove_all(waits.values().flatten().map(|(key, _)| key));
        drop(spawn_blocking(keys).await);
    }
    left
}

/// Tells waits as lost that cannot be followed: the probes were not there any more when their goroutines were read, so that what
/// was read may be of later waits.
pub(super) fn lose(agent: &Agent, left: &[Leftover], scale: f64) {
    for of_one in left.chunk_by(|a, b| a.id == b.id) {
        agent.inner.kernel.maps().lose(of_one[0].id, Reason::WaitUnreadable, weight(of_one, scale));
    }
}

impl Agent {
    /// Reads a target's memory on a thread that may never come back. While some have not, no more ask the same target: none
    /// then.
    async fn ask_memory<T: Send + 'static>(&self, id: u32, read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let asking = Asking::begin(id)?;
        let read = move || {
            let read = read();
            drop(asking);
            read
        };
        spawn_blocking(read).await.ok()
    }

    /// Counts waits of a target as lost that cannot be followed, unless its process has ended: what waited then has not ended
    /// itself.
    async fn lose_if_there(&self, id: u32, pid: u32, waits: u64) {
        let agent = self.clone();
        let lose = move || {
            let target = agent.state().targets.share(id).filter(|it| it.process.id.pid == pid);
            if target.is_some_and(|target| target.process.is_there()) {
                agent.inner.kernel.maps().lose(id, Reason::WaitUnreadable, waits);
            }
        };
        drop(spawn_blocking(lose).await);
    }

    /// Looks at goroutines that wait: what is to be followed of them, and how many cannot be.
    fn look_at(&self, id: u32, pid: u32, waits: &[(u64, Parked)]) -> (Vec<Leftover>, u64) {
        let parked = &self.inner.kernel.maps().parked;
        let offsets = {
            let state = self.state();
            let inspection = state.targets.get(&id).and_then(|target| target.inspection.as_deref());
            inspection
                .map(|it| (it.g_tracking_seq, it.g_status))
                .filter(|(seq, status)| *seq != NONE && *status != NONE)
        };
        let Some((seq, status)) = offsets else { return (Vec::new(), waits.len() as u64) };
        let step = waits.len().div_ceil(MOST).max(1);
        let (mut left, mut lost) = (Vec::new(), 0);
        for (key, entry) in waits.iter().step_by(step) {
            let g = address_of(*key);
            let at = (g + u64::from(seq), g + u64::from(status));
            let seen = read(pid, &[at]).and_then(|seen| seen.first().copied());
            if parked.get(key).is_none_or(|now| now.start_ns != entry.start_ns) {
                continue;
            }
            match seen {
                Some((seq, _)) => {
                    let (reason, start_ns) = (entry.reason as u16, entry.start_ns);
                    left.push(Leftover { id, pid, at, seq, reason, start_ns, weight: step as f64 });
                }
                None => lost += step as u64,
            }
        }
        (left, lost)
    }
}

/// Threads that read a target's memory, by its id.
static ASKING: Mutex<BTreeMap<u32, usize>> = Mutex::new(BTreeMap::new());
/// Most of one target: those that follow waits of its last windows, and one that looks at what this one left.
const MOST_ASKING: usize = 8;

struct Asking(u32);

impl Asking {
    fn begin(id: u32) -> Option<Self> {
        let mut asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
        let count = asking.entry(id).or_default();
        (*count < MOST_ASKING).then(|| {
            *count += 1;
            Self(id)
        })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut asking = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = asking.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                asking.remove(&self.0);
            }
        }
    }
}

/// Follows waits until they end; each then counts `scale` times its weight. Those of each target for themselves: its memory may
/// never answer.
pub(super) fn follow(agent: &Agent, left: &[Leftover], scale: f64) {
    for of_one in left.chunk_by(|a, b| a.id == b.id) {
        tokio::spawn(follow_one(agent.clone(), of_one.to_vec(), scale));
    }
}

async fn follow_one(agent: Agent, mut left: Vec<Leftover>, scale: f64) {
    let Some(&Leftover { id, pid, .. }) = left.first() else { return };
    let mut looked = monotonic_ns();
    while !left.is_empty() {
        let youngest = left.iter().map(|it| looked.saturating_sub(it.start_ns)).min().unwrap_or(0);
        let wait = Duration::from_nanos(youngest / 10).clamp(Duration::from_millis(5), Duration::from_secs(30));
        tokio::time::sleep(wait).await;
        let now = monotonic_ns();
        let places: Vec<_> = left.iter().map(|it| it.at).collect();
        let seen = agent.ask_memory(id, move || read(pid, &places)).await.flatten();
        let followed = seen.as_ref().map(|seen| Followed::of(&left, seen, now));
        {
            let mut state = agent.state();
            let target = state.targets.get_mut(&id);
            // What waited when the process ended has not ended itself: it is not lost.
            let Some(target) = target.filter(|target| target.process.id.pid == pid && target.stage.is_live()) else {
                return;
            };
            for it in followed.iter().flat_map(|followed| &followed.ended) {
                // It ended between the two looks.
                let middle = looked + now.saturating_sub(looked) / 2;
                target.blocked.ended(it.reason, middle.saturating_sub(it.start_ns), it.weight * scale);
            }
        }
        let Some(followed) = followed else {
            agent.lose_if_there(id, pid, weight(&left, scale)).await;
            return;
        };
        if !followed.too_long.is_empty() {
            agent.inner.kernel.maps().lose(id, Reason::WaitTooLong, weight(&followed.too_long, scale));
        }
        left = followed.on;
        looked = now;
    }
}

/// How many waits these stand for.
fn weight(left: &[Leftover], scale: f64) -> u64 {
    (left.iter().map(|it| it.weight).sum::<f64>() * scale).round() as u64
}

/// What became of waits by a look at their goroutines.
#[derive(Debug, Default)]
struct Followed {
    ended: Vec<Leftover>,
    on: Vec<Leftover>,
    /// They go on, and are followed no more.
    too_long: Vec<Leftover>,
}

impl Followed {
    fn of(left: &[Leftover], seen: &[(u8, u32)], now: u64) -> Self {
        let mut followed = Self::default();
        for (it, (seq, status)) in left.iter().zip(seen) {
            // Waiting, or made runnable and not run yet (runtime/runtime2.go; 0x1000 is the collector's bit).
            let goes_on = *seq == it.seq && matches!(status & !0x1000, 1 | 4);
            let to = if !goes_on {
                &mut followed.ended
            } else if Duration::from_nanos(now.saturating_sub(it.start_ns)) < LONGEST {
                &mut followed.on
            } else {
                &mut followed.too_long
            };
            to.push(*it);
        }
        followed
    }
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

#[cfg(test)]
mod tests;
