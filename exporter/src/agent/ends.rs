//! What goroutines began and whose end no probe sees: a connection that was taken over on another goroutine than its own, and whatever else takes
//! a goroutine away from its request. A task of its own finds them, counts the former, and tells the latter as lost. Knows nothing of
//! labels, nor of panicked requests but that they are not its own.

use std::{
    collections::{HashMap, HashSet},
    sync::mpsc,
    time::{Duration, Instant},
};

use exporter_ebpf::{
    event,
    http::{Hijacked, InFlight, PanicKey, TOLD, is_request},
    key::{address_key, address_of, target_of},
    loss::Reason,
    span::{Lane, Span, is_in},
};
use tracing::debug;

use super::{
    Agent,
    goroutine::{self, Goroutine, Layout},
    patience,
};
use crate::process::Process;

/// Time between two turns that nobody asks for.
const TURN: Duration = Duration::from_secs(5);
/// How much longer than it took it rests after a turn, and within which bounds: hijacks may come at any rate.
const REST: u32 = 50;
const RESTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// From which age on a request's goroutine is looked at, and then the time to the second look.
const LONG: Duration = Duration::from_secs(10);
/// How far apart looks at a request that goes on come to be.
const SELDOM: Duration = Duration::from_secs(160);
/// Looks in one turn: a system call for 512 of them.
const LOOKS: usize = 8192;
/// How long one program's memory is waited for, and all together.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request that a goroutine has begun: the goroutine's key, and the start.
type Request = (u64, u64);

impl Agent {
    /// Finds such requests from here on: whenever the kernel side tells of hijacks, and from time to time.
    pub(super) fn settle_ends(&self) {
        let agent = self.clone();
        tokio::spawn(async move {
            let mut agenda = Agenda::new();
            loop {
                let _ = tokio::time::timeout(TURN, agent.inner.hijacked.notified()).await;
                let (began, worker) = (Instant::now(), agent.clone());
                let turn = tokio::task::spawn_blocking(move || {
                    worker.turn(&mut agenda);
                    agenda
                });
                agenda = turn.await.unwrap_or_else(|_| Agenda::new());
                tokio::time::sleep((began.elapsed() * REST).clamp(RESTS.0, RESTS.1)).await;
            }
        });
    }

    fn turn(&self, agenda: &mut Agenda) {
        let maps = self.inner.kernel.maps();
        // Before the look: what comes from here on is told anew.
        let _ = maps.pending.set(event::HIJACK, &0);
        let hijacks =
            maps.hijacks.read(|all: &mut HashMap<u64, Hijacked>, key, hijacked| _ = all.insert(*key, *hijacked));
        let Ok(hijacks) = hijacks else { return };
        let now = crate::clock::monotonic_ns();
        // After the hijacks: the request of each was in flight before it.
        let seen = maps.in_flight.read(|(taken, long): &mut (Vec<(u64, Span)>, Vec<Request>), key, entry| {
            let age = now.saturating_sub(entry.start_ns);
            match hijack_of(&hijacks, *key, entry) {
                _ if entry.open == 0 => {}
                Some(_) => taken.push((*key, *entry)),
                None if age >= LONG.as_nanos() as u64 => long.push((*key, entry.start_ns)),
                None => {}
            }
        });
        let Ok((taken, long)) = seen else { return };
        self.count_hijacked(&hijacks, taken);
        let due = agenda.due(&long, now);
        agenda.look(self.looks(&due));
        for over in agenda.over() {
            self.tell_lost(over);
        }
    }

    /// Counts hijacked requests, and forgets hijacks that are of no request in flight: it had ended before, was taken over for
    /// the second time, or was refused.
    fn count_hijacked(&self, hijacks: &HashMap<u64, Hijacked>, mut taken: Vec<(u64, Span)>) {
        let maps = self.inner.kernel.maps();
        let mut counted = HashSet::new();
        let reading = self.reading();
        // An earlier request may be there whose response writer was freed and had the same place: it is the later one's hijack.
        taken.sort_unstable_by_key(|(_, entry)| std::cmp::Reverse(entry.start_ns));
        for (key, entry) in taken {
            if !reading.view.targets.contains_key(&target_of(key)) {
                continue;
            }
            let of = address_key(target_of(key), entry.open);
            let Some(hijacked) = hijacks.get(&of).filter(|_| counted.insert(of)) else { continue };
            let now = maps.in_flight.get(&key);
            let same = now.is_some_and(|now| (now.start_ns, now.open) == (entry.start_ns, entry.open));
            // In this order: whoever has removed the hijack counts it, and the kernel side looks for it when it finds the request.
            if same && maps.in_flight.remove(&key) && maps.hijacks.remove(&of) && is_request(&hijacked.series) {
                self.ledger().settle(&reading.view, &hijacked.series, hijacked.at_ns - entry.start_ns, None);
            }
        }
        for (key, hijacked) in hijacks {
            if maps.hijacks.get(key).is_some_and(|now| now == *hijacked) {
                maps.hijacks.remove(key);
            }
        }
    }

    /// What the looks need, one for each program.
    fn looks(&self, due: &[Request]) -> Vec<(u32, Process, Layout, Vec<Request>)> {
        let mut of: HashMap<u32, Vec<Request>> = HashMap::new();
        for request in due {
            of.entry(target_of(request.0)).or_default().push(*request);
        }
        let state = self.state();
        let look = |(id, requests)| {
            let target = state.targets.get(&id).filter(|target| target.stage.is_live())?;
            Some((id, target.process.clone(), Layout::of(target.inspection.as_deref()?)?, requests))
        };
        of.into_iter().filter_map(look).collect()
    }

    /// Its goroutine is gone. If the request is in flight nevertheless, and nobody else is to count it, it is lost.
    fn tell_lost(&self, (key, start_ns): Request) {
        let (maps, id) = (self.inner.kernel.maps(), target_of(key));
        let still = maps.in_flight.get(&key).filter(|now| now.open != 0 && now.start_ns == start_ns);
        let Some(entry) = still else { return };
        let is_request = is_in(key, Lane::HttpServer);
        let panicked = maps.panics.get(&PanicKey { goroutine: key, start_ns }).is_some();
        let hijacked =
            is_request && maps.hijacks.get(&address_key(id, entry.open)).is_some_and(|it| it.at_ns >= start_ns);
        let is_told = is_request && InFlight::from(entry).outer & TOLD != 0;
        let lives = self.state().targets.get(&id).is_some_and(|target| target.stage.is_live());
        let settled = self.ledger().is_settled(key, start_ns);
        if settled {
            // It panicked, and was counted.
            maps.in_flight.remove(&key);
        } else if lives && !panicked && !hijacked && maps.in_flight.remove(&key) && !is_told {
            debug!(target = id, "a request's goroutine is gone, and its end was not seen");
            maps.lose(id, Reason::EndNotSeen, 1);
        }
    }
}

/// The hijack of a request. One before its start was of an earlier request, whose response writer was where this one's is.
fn hijack_of(hijacks: &HashMap<u64, Hijacked>, key: u64, entry: &Span) -> Option<Hijacked> {
    if !is_in(key, Lane::HttpServer) {
        return None;
    }
    let hijacked = hijacks.get(&address_key(target_of(key), entry.open))?;
    (hijacked.at_ns >= entry.start_ns).then_some(*hijacked)
}

/// Long requests, and when the goroutine of each is looked at next.
struct Agenda {
    waiting: HashMap<u64, Waiting>,
    turns: u64,
    /// Programs that are being looked at. A program may never hand over its memory: its requests stay as they are.
    asked: HashSet<u32>,
    tell: mpsc::Sender<Found>,
    told: mpsc::Receiver<Found>,
}

#[derive(Clone, Copy)]
struct Waiting {
    start_ns: u64,
    /// The id of its goroutine at the first look; another id at the same address is another goroutine.
    goid: Option<u64>,
    /// When to look, nanoseconds, and how long after that again.
    at: u64,
    then: u64,
    /// The last turn that has seen it.
    turn: u64,
}

/// What was found of one program's requests.
type Found = (u32, Vec<(Request, Option<Goroutine>)>);

/// A look at one program's goroutines. It tells of itself when it goes, whether it came to its turn or not.
struct Look {
    found: Found,
    process: Process,
    layout: Layout,
    requests: Vec<Request>,
    tell: mpsc::Sender<Found>,
}

impl Look {
    fn take(mut self) {
        let addresses: Vec<u64> = self.requests.iter().map(|(key, _)| address_of(*key)).collect();
        if let Ok(seen) = goroutine::read(self.process.id.pid, self.layout, &addresses) {
            self.found.1 = self.requests.iter().copied().zip(seen).collect();
        }
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let _ = self.tell.send((self.found.0, std::mem::take(&mut self.found.1)));
    }
}

impl Agenda {
    fn new() -> Self {
        let (tell, told) = mpsc::channel();
        Self { waiting: HashMap::new(), turns: 0, asked: HashSet::new(), tell, told }
    }

    /// Takes over which requests are long now; those to be looked at in this turn, the longest overdue first.
    fn due(&mut self, long: &[Request], now: u64) -> Vec<Request> {
        self.turns += 1;
        let (turn, first) = (self.turns, LONG.as_nanos() as u64);
        let mut due = Vec::new();
        for &(key, start_ns) in long {
            let new = Waiting { start_ns, goid: None, at: now, then: first, turn };
            let it = self.waiting.entry(key).or_insert(new);
            if it.start_ns != start_ns {
                *it = new;
            }
            it.turn = turn;
            if it.at <= now && !self.asked.contains(&target_of(key)) {
                due.push((it.at, start_ns, key));
            }
        }
        self.waiting.retain(|_, it| it.turn == turn);
        due.sort_unstable();
        due.truncate(LOOKS);
        for (_, _, key) in &due {
            if let Some(it) = self.waiting.get_mut(key) {
                (it.at, it.then) = (now + it.then, (it.then * 2).min(SELDOM.as_nanos() as u64));
            }
        }
        due.into_iter().map(|(_, start_ns, key)| (key, start_ns)).collect()
    }

    fn look(&mut self, looks: Vec<(u32, Process, Layout, Vec<Request>)>) {
        let tell = self.tell.clone();
        let look = |(id, process, layout, requests)| Look {
            found: (id, Vec::new()),
            process,
            layout,
            requests,
            tell: tell.clone(),
        };
        let looks: Vec<Look> = looks.into_iter().map(look).collect();
        self.asked.extend(looks.iter().map(|look| look.found.0));
        patience::each(looks, PATIENCE, Some(Instant::now() + PATIENCE * 4), || Look::take);
    }

    /// Requests that were found to have lost their goroutine, since this was last asked.
    fn over(&mut self) -> Vec<Request> {
        let mut over = Vec::new();
        while let Ok((id, found)) = self.told.try_recv() {
            self.asked.remove(&id);
            over.extend(found.into_iter().filter(|(request, seen)| self.is_over(*request, *seen)).map(|(it, _)| it));
        }
        over
    }

    /// Whether a look shows that a request's goroutine is gone: nothing is there, or another goroutine.
    fn is_over(&mut self, (key, start_ns): Request, seen: Option<Goroutine>) -> bool {
        let Some(it) = self.waiting.get_mut(&key).filter(|it| it.start_ns == start_ns) else { return false };
        let Some(seen) = seen.filter(|seen| !seen.is_dead) else { return true };
        *it.goid.get_or_insert(seen.goid) != seen.goid
    }
}

#[cfg(test)]
mod tests;
