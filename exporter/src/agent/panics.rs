//! Panicked requests: finds out which of them their goroutine has taken with it, and counts those. A task of its own, which reads
//! the programs' memory while nobody waits for it. Knows nothing of labels.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use exporter_ebpf::{
    event,
    http::{PanicKey, Panicked},
    key::{address_of, target_of},
};

use super::{
    Agent,
    goroutine::{self, Layout},
    patience,
};
use crate::target::Inspection;

/// How long after a panic its goroutine should be gone. Turns are this far apart at least.
const LOOK: Duration = Duration::from_millis(100);
/// How far apart looks at a request that goes on come to be: less than a target lingers after its end.
const SELDOM: Duration = Duration::from_millis(3200);
/// How long one look may take. On an idle machine it is some microseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// Looks in one turn: some system calls each.
const LOOKS: usize = 1024;
/// Looks that one read of a program's memory serves.
const AT_ONCE: usize = 512;
/// A turn is followed by a rest of so many times as long as it took: programs decide how many requests panic, and not what part of
/// a core that takes.
const RESTS: u32 = 30;
/// The longest rest: a turn may have waited for memory that never came.
const LONGEST: Duration = Duration::from_secs(1);

/// The time from a turn that took this long to the next.
fn rest(took: Duration) -> Duration {
    (took * RESTS).clamp(LOOK, LONGEST)
}

impl Agent {
    /// Settles panicked requests from here on: whenever the kernel side tells of some, and while some go on.
    pub(super) fn settle_panics(&self) {
        let agent = self.clone();
        tokio::spawn(async move {
            let (mut agenda, mut took) = (Agenda::default(), Duration::ZERO);
            loop {
                let told = agent.inner.panicked.notified();
                match agenda.next() {
                    Some(next) => drop(tokio::time::timeout_at(next.into(), told).await),
                    None => told.await,
                }
                tokio::time::sleep(rest(took)).await;
                let worker = agent.clone();
                let turn = tokio::task::spawn_blocking(move || {
                    let begun = Instant::now();
                    worker.settle(&mut agenda);
                    (agenda, begun.elapsed())
                });
                (agenda, took) = turn.await.unwrap_or_default();
            }
        });
    }

    /// Looks at the requests whose time has come. Of this and the kernel's own settling, whoever removes an entry counts it.
    fn settle(&self, agenda: &mut Agenda) {
        let maps = self.inner.kernel.maps();
        // Before the look: what panics from here on is told anew.
        let _ = maps.pending.set(event::PANIC, &0);
        // Where it cannot be read, they wait for the next time.
        let waiting = maps.panics.read(|all: &mut HashMap<_, _>, key, panicked| _ = all.insert(*key, *panicked));
        let Ok(waiting) = waiting else { return };
        let due = agenda.due(&waiting, Instant::now());
        if due.is_empty() {
            return;
        }
        let inspections: HashMap<u32, _> = {
            let state = self.state();
            let ids = due.iter().map(|key| target_of(key.goroutine));
            ids.filter_map(|id| Some((id, state.targets.get(&id)?.inspection.clone()?))).collect()
        };
        let mut looks = Vec::new();
        for key in due {
            let entry = maps.in_flight.get(&key.goroutine);
            if entry.is_none_or(|entry| entry.open == 0 || entry.start_ns != key.start_ns) {
                // Recovered by middleware: the request ended normally and was counted.
                maps.panics.remove(&key);
            } else if let Some(inspection) = inspections.get(&target_of(key.goroutine)) {
                looks.push(Look { key, panicked: waiting[&key], inspection: Arc::clone(inspection) });
            } else {
                agenda.goes_on(&key, Instant::now());
            }
        }
        let over = agenda.look(looks);
        if over.is_empty() {
            return;
        }
        let reading = self.reading();
        for key in over {
            if !reading.view.targets.contains_key(&target_of(key.goroutine)) {
                continue;
            }
            // Read anew: the goroutine may have panicked once more before it ended.
            let Some(panicked) = maps.panics.get(&key) else { continue };
            // Asked once the goroutine is known to be gone: it may have ended the request normally right before, and that counted it.
            let in_flight = maps.in_flight.get(&key.goroutine);
            let in_flight = in_flight.is_some_and(|entry| entry.open != 0 && entry.start_ns == key.start_ns);
            if maps.panics.remove(&key) && in_flight {
                let request = Some((key.goroutine, key.start_ns));
                self.ledger().settle(&reading.view, &panicked.series, panicked.duration_ns, request);
            }
        }
    }
}

/// When each waiting request is looked at next.
#[derive(Default)]
struct Agenda {
    next: HashMap<PanicKey, Next>,
    /// Targets whose memory did not answer: a thread waits for each. Their requests stay as they are.
    silent: HashSet<u32>,
}

/// What a look at a request's goroutine needs.
struct Look {
    key: PanicKey,
    panicked: Panicked,
    inspection: Arc<Inspection>,
}

struct Next {
    at: Instant,
    /// Should it go on then, the time until the next look.
    then: Duration,
}

impl Agenda {
    /// Takes over what is waiting now; those to be looked at in this turn, the longest overdue first.
    fn due<T>(&mut self, waiting: &HashMap<PanicKey, T>, now: Instant) -> Vec<PanicKey> {
        self.silent.retain(|target| waiting.keys().any(|key| target_of(key.goroutine) == *target));
        let asked = |key: &PanicKey| !self.silent.contains(&target_of(key.goroutine));
        self.next.retain(|key, _| waiting.contains_key(key) && asked(key));
        for key in waiting.keys().filter(|key| asked(key)) {
            self.next.entry(*key).or_insert(Next { at: now, then: LOOK });
        }
        let mut due: Vec<_> =
            self.next.iter().filter(|(_, next)| next.at <= now).map(|(key, next)| (next.at, *key)).collect();
        due.sort_unstable_by_key(|(at, key)| (*at, key.start_ns));
        due.into_iter().take(LOOKS).map(|(_, key)| key).collect()
    }

    /// Looks at the goroutines; which requests are over. A program may never hand over its memory: the others do not wait for it.
    fn look(&mut self, looks: Vec<Look>) -> Vec<PanicKey> {
        let asked: Vec<PanicKey> = looks.iter().map(|look| look.key).collect();
        let parts = parts(looks);
        let firsts: Vec<PanicKey> = parts.iter().filter_map(|part| Some(part.first()?.key)).collect();
        let (tell, told) = mpsc::channel();
        let until = Instant::now() + PATIENCE * 4;
        let left = patience::each(parts, PATIENCE, Some(until), move || {
            let tell = tell.clone();
            move |part: Vec<Look>| {
                for (look, over) in part.iter().zip(are_over(&part)) {
                    let _ = tell.send((look.key, over));
                }
            }
        });
        let found: HashMap<PanicKey, bool> = told.try_iter().collect();
        let now = Instant::now();
        for key in asked.iter().filter(|key| !found.get(key).is_some_and(|over| *over)) {
            self.goes_on(key, now);
        }
        if left > 0
            && let Some(key) = firsts.iter().find(|key| !found.contains_key(key))
        {
            // In their order the first that was not told of is the one that did not come back.
            self.silent.insert(target_of(key.goroutine));
        }
        found.into_iter().filter(|(_, over)| *over).map(|(key, _)| key).collect()
    }

    /// A request was looked at and is not over.
    fn goes_on(&mut self, key: &PanicKey, now: Instant) {
        if let Some(next) = self.next.get_mut(key) {
            *next = Next { at: now + next.then, then: (next.then * 2).min(SELDOM) };
        }
    }

    /// When the first of them is to be looked at.
    fn next(&self) -> Option<Instant> {
        self.next.values().map(|next| next.at).min()
    }
}

/// Looks of one target, of which one read serves as many as it can.
fn parts(looks: Vec<Look>) -> Vec<Vec<Look>> {
    let mut parts: Vec<Vec<Look>> = Vec::new();
    let mut open: HashMap<u32, usize> = HashMap::new();
    for look in looks {
        let target = target_of(look.key.goroutine);
        let part = open.get(&target).and_then(|at| parts.get_mut(*at)).filter(|part| part.len() < AT_ONCE);
        if let Some(part) = part {
            part.push(look);
        } else {
            open.insert(target, parts.len());
            parts.push(vec![look]);
        }
    }
    parts
}

/// Whether the goroutine that panicked is gone, of each: nothing runs there, or another goroutine, or it cannot be read any more.
fn are_over(part: &[Look]) -> Vec<bool> {
    let gone = || vec![true; part.len()];
    let Some(first) = part.first() else { return Vec::new() };
    let Some(layout) = Layout::of(&first.inspection) else { return gone() };
    let places: Vec<u64> = part.iter().map(|look| address_of(look.key.goroutine)).collect();
    let Ok(found) = goroutine::read(first.panicked.pid, layout, &places) else { return gone() };
    let is_over = |(look, found): (&Look, Option<goroutine::Goroutine>)| {
        found.is_none_or(|found| found.is_dead || found.goid != look.panicked.goid)
    };
    part.iter().zip(found).map(is_over).collect()
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
    fn a_turn_is_followed_by_a_rest() {
        assert_eq!(rest(Duration::ZERO), LOOK);
        assert_eq!(rest(Duration::from_millis(10)), Duration::from_millis(300));
        assert_eq!(rest(4 * PATIENCE), LONGEST);
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
