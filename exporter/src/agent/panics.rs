//! Panicked requests: finds out which of them their goroutine has taken with it, and counts those. A task of its own, which reads
//! the programs' memory while nobody waits for it. Knows nothing of labels.

use std::{
    collections::HashMap,
    io::IoSliceMut,
    time::{Duration, Instant},
};

use exporter_ebpf::{
    event,
    histogram::bucket,
    http::{PanicKey, Panicked, SeriesValue, goroutine_key_g, goroutine_key_target},
};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use super::{Agent, state::State};
use crate::target::Inspection;

/// How long after a panic its goroutine should be gone. Turns are this far apart at least.
const LOOK: Duration = Duration::from_millis(100);
/// How far apart looks at a request that goes on come to be: less than a target lingers after its end.
const SELDOM: Duration = Duration::from_millis(3200);
/// Looks in one turn: two system calls each, and two reads of a program's memory.
const LOOKS: usize = 1024;

impl Agent {
    /// Settles panicked requests from here on: whenever the kernel side tells of some, and while some go on.
    pub(super) fn settle_panics(&self) {
        let agent = self.clone();
        tokio::spawn(async move {
            let mut agenda = Agenda::default();
            loop {
                let told = agent.inner.panicked.notified();
                match agenda.next() {
                    Some(next) => drop(tokio::time::timeout_at(next.into(), told).await),
                    None => told.await,
                }
                tokio::time::sleep(LOOK).await;
                let worker = agent.clone();
                let turn = tokio::task::spawn_blocking(move || {
                    worker.settle(&mut agenda);
                    agenda
                });
                agenda = turn.await.unwrap_or_default();
            }
        });
    }

    /// Looks at the requests whose time has come. Of this and the kernel's own settling, whoever removes an entry counts it.
    fn settle(&self, agenda: &mut Agenda) {
        let maps = self.inner.kernel.maps();
        // Before the look: what panics from here on is told anew.
        let _ = maps.pending.set(event::PANIC, &0);
        let mut waiting = HashMap::new();
        maps.panics.for_each(|key, panicked| {
            waiting.insert(*key, *panicked);
        });
        let due = agenda.due(&waiting, Instant::now());
        if due.is_empty() {
            return;
        }
        let inspections: HashMap<u32, _> = {
            let state = self.state();
            let ids = due.iter().map(|key| goroutine_key_target(key.goroutine));
            ids.filter_map(|id| Some((id, state.targets.get(&id)?.inspection.clone()?))).collect()
        };
        let mut over = Vec::new();
        for key in due {
            let inspection = inspections.get(&goroutine_key_target(key.goroutine));
            let entry = maps.in_flight.get(&key.goroutine);
            if entry.is_none_or(|entry| entry.writer == 0 || entry.start_ns != key.start_ns) {
                // Recovered by middleware: the request ended normally and was counted.
                maps.panics.remove(&key);
            } else if inspection.is_some_and(|it| is_over(it, key.goroutine, &waiting[&key])) {
                over.push(key);
            } else {
                agenda.goes_on(&key, Instant::now());
            }
        }
        let mut state = self.state();
        for key in over {
            // Its target may have been buried meanwhile, and the entry with it. Read anew: the goroutine may have panicked once
            // more before it ended.
            if let Some(panicked) = maps.panics.get(&key)
                && maps.panics.remove(&key)
            {
                state.count_panicked(&key, &panicked);
            }
        }
    }
}

impl State {
    fn count_panicked(&mut self, key: &PanicKey, panicked: &Panicked) {
        self.settled_requests.insert(key.goroutine, key.start_ns);
        let value = self.settled.entry(panicked.series).or_insert(SeriesValue::ZERO);
        value.buckets[bucket(panicked.duration_ns)] += 1;
        value.sum_ns = value.sum_ns.saturating_add(panicked.duration_ns);
    }
}

/// When each waiting request is looked at next.
#[derive(Default)]
struct Agenda(HashMap<PanicKey, Next>);

struct Next {
    at: Instant,
    /// Should it go on then, the time until the next look.
    then: Duration,
}

impl Agenda {
    /// Takes over what is waiting now; those to be looked at in this turn, the longest overdue first.
    fn due<T>(&mut self, waiting: &HashMap<PanicKey, T>, now: Instant) -> Vec<PanicKey> {
        self.0.retain(|key, _| waiting.contains_key(key));
        for key in waiting.keys() {
            self.0.entry(*key).or_insert(Next { at: now, then: LOOK });
        }
        let mut due: Vec<_> =
            self.0.iter().filter(|(_, next)| next.at <= now).map(|(key, next)| (next.at, *key)).collect();
        due.sort_unstable_by_key(|(at, key)| (*at, key.start_ns));
        due.into_iter().take(LOOKS).map(|(_, key)| key).collect()
    }

    /// A request was looked at and is not over.
    fn goes_on(&mut self, key: &PanicKey, now: Instant) {
        if let Some(next) = self.0.get_mut(key) {
            *next = Next { at: now + next.then, then: (next.then * 2).min(SELDOM) };
        }
    }

    /// When the first of them is to be looked at.
    fn next(&self) -> Option<Instant> {
        self.0.values().map(|next| next.at).min()
    }
}

/// Whether the goroutine that panicked is gone: its g is dead (6) or idle (0), serves as another goroutine, or cannot be read
/// any more (runtime/runtime2.go; the upper bit 0x1000 of a status is the garbage collector's).
fn is_over(inspection: &Inspection, goroutine: u64, panicked: &Panicked) -> bool {
    let g = goroutine_key_g(goroutine);
    let goid = read_u64(panicked.pid, g + u64::from(inspection.config.g_goid));
    let status = read_u64(panicked.pid, g + u64::from(inspection.g_status)).map(|word| word as u32 & !0x1000);
    goid != Some(panicked.goid) || matches!(status, Some(0 | 6))
}

/// A word of a process's memory; none where it cannot be read.
fn read_u64(pid: u32, address: u64) -> Option<u64> {
    let mut word = [0; 8];
    let remote = RemoteIoVec { base: usize::try_from(address).ok()?, len: word.len() };
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut word)], &[remote]).ok()?;
    (read == 8).then(|| u64::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(starts: std::ops::Range<u64>) -> HashMap<PanicKey, u64> {
        starts.map(|start_ns| (PanicKey { goroutine: start_ns % 7, start_ns }, start_ns)).collect()
    }

    #[test]
    fn a_request_that_goes_on_is_looked_at_less_and_less() {
        let (mut agenda, one, begin) = (Agenda::default(), waiting(0..1), Instant::now());
        let mut looks = Vec::new();
        for tick in 0..200 {
            let now = begin + tick * LOOK;
            for key in agenda.due(&one, now) {
                looks.push(tick);
                agenda.goes_on(&key, now);
            }
        }
        assert_eq!(looks, [0, 1, 3, 7, 15, 31, 63, 95, 127, 159, 191]);
    }

    #[test]
    fn a_turn_is_bounded_and_none_is_forgotten() {
        let (mut agenda, many, begin) = (Agenda::default(), waiting(0..3000), Instant::now());
        let mut seen = std::collections::HashSet::new();
        for tick in 0..3 {
            let now = begin + tick * LOOK / 10;
            let due = agenda.due(&many, now);
            assert!(due.len() <= LOOKS);
            for key in due {
                assert!(seen.insert(key), "looked at twice while others wait");
                agenda.goes_on(&key, now);
            }
        }
        assert_eq!(seen.len(), 3000);
    }

    #[test]
    fn what_is_gone_is_not_waited_for() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        assert_eq!(agenda.due(&waiting(0..5), now).len(), 5);
        assert_eq!(agenda.next(), Some(now));
        assert_eq!(agenda.due(&waiting(5..5), now), []);
        assert_eq!(agenda.next(), None);
    }
}
