//! Who has a place: which connection gives way where all places are taken, and which has let the agent wait for too long. Knows
//! connections by number, client and for how long they have been waited for; nothing of HTTP or TLS.

mod verdict;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use self::verdict::{Taken, Verdict, verdict};
use super::turnstile::Turnstile;

/// One in so many places is a client address's share, where others want in.
const CLIENTS: usize = 4;
/// For TLS's handshake and the head of a request, together, from the first byte or from the connection on.
const HEAD: Duration = Duration::from_secs(5);
/// For the next request on a connection that is kept: longer than most scrape intervals.
const KEPT: Duration = Duration::from_mins(2);
/// For a client to take some more of its answer.
const STALL: Duration = Duration::from_secs(5);

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of the next request has come since then.
    Kept(Instant),
    /// No whole head has come since then.
    Head(Instant),
    /// So many requests have come whose answers are not at their end.
    Answer(u32),
}

/// What connections carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Carries {
    /// Requests one after another: each has a head, and the next comes soon.
    #[default]
    Heads,
    /// Streams beside each other, on connections that are kept for good: bytes between requests are no beginning of one.
    Streams,
}

/// For whom a connection waits: its client, or the agent.
#[derive(Clone, Copy, Debug)]
struct State {
    carries: Carries,
    phase: Phase,
    /// Since when the client has taken nothing of what was written.
    stalled: Option<Instant>,
    turn: Turn,
}

/// Whether a connection has had its turn at the [`Turnstile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// No, and nothing is written before.
    Awaited,
    /// Yes, for its handshake: its first request is answered by the same.
    Ahead,
    /// Yes, and a request has used it: the next needs another.
    Used,
}

impl State {
    /// Since when the client has been waited for.
    fn waits_since(self) -> Option<Instant> {
        match self.phase {
            Phase::Kept(since) | Phase::Head(since) => Some(since),
            Phase::Answer(_) => self.stalled,
        }
    }

    fn overdue(self, now: Instant) -> bool {
        let longer = |since: Instant, limit| now.saturating_duration_since(since) > limit;
        self.stalled.is_some_and(|since| longer(since, STALL))
            || match self.phase {
                Phase::Kept(since) => self.carries == Carries::Heads && longer(since, KEPT),
                Phase::Head(since) => longer(since, HEAD),
                Phase::Answer(_) => false,
            }
    }
}

/// What a connection is at, told by those who serve it.
#[derive(Debug)]
pub(crate) struct Activity(Mutex<State>);

impl Activity {
    fn begun(carries: Carries) -> Self {
        Self(Mutex::new(State { carries, phase: Phase::Head(Instant::now()), stalled: None, turn: Turn::Awaited }))
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes have come.
    pub(crate) fn received(&self) {
        self.change(|it| {
            if it.carries == Carries::Heads && matches!(it.phase, Phase::Kept(_)) {
                it.phase = Phase::Head(Instant::now());
            }
        });
    }

    /// Streams can come now: a handshake is over.
    pub(crate) fn ready(&self) {
        self.change(|it| it.phase = Phase::Kept(Instant::now()));
    }

    /// A request's head is whole; its answer is made when what this returns is dropped.
    pub(crate) fn asked(self: &Arc<Self>) -> Asked {
        self.change(|it| it.phase = Phase::Answer(if let Phase::Answer(others) = it.phase { others + 1 } else { 1 }));
        Asked(Arc::clone(self))
    }

    /// Whether bytes may be written: its turn has come.
    pub(super) fn may_write(&self) -> bool {
        self.state().turn != Turn::Awaited
    }

    /// Its turn has come before it has asked anything.
    pub(super) fn enters(&self) {
        self.change(|it| it.turn = Turn::Ahead);
    }

    /// A request is to be answered. Whether it needs a turn of its own.
    fn needs_turn(&self) -> bool {
        let mut needs = false;
        self.change(|it| needs = std::mem::replace(&mut it.turn, Turn::Used) != Turn::Ahead);
        needs
    }

    /// The client's end takes no more for now.
    pub(crate) fn stalled(&self) {
        self.change(|it| _ = it.stalled.get_or_insert_with(Instant::now));
    }

    /// It has taken some.
    pub(crate) fn took(&self) {
        self.change(|it| it.stalled = None);
    }
}

/// A request whose answer is not made yet.
#[derive(Debug)]
pub(crate) struct Asked(Arc<Activity>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.change(|it| match it.phase {
            Phase::Answer(all) if all > 1 => it.phase = Phase::Answer(all - 1),
            _ => it.phase = Phase::Kept(Instant::now()),
        });
    }
}

#[derive(Debug)]
struct Held {
    client: IpAddr,
    activity: Arc<Activity>,
    /// The last sweep found it overdue. If so does the next it is ended: an agent that was kept from its work has not seen yet what
    /// its clients have sent meanwhile.
    noted: bool,
    task: Option<AbortHandle>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    held: BTreeMap<u64, Held>,
}

impl Table {
    fn end(&mut self, number: u64) {
        if let Some(task) = self.held.remove(&number).and_then(|held| held.task) {
            task.abort();
        }
    }
}

/// All places of a server.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    most: usize,
    carries: Carries,
    turnstiles: Option<Turnstiles>,
    table: Arc<Mutex<Table>>,
}

/// One connection's place, free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    table: Arc<Mutex<Table>>,
    /// Whose it is.
    pub(crate) client: IpAddr,
    /// What its connection is at.
    pub(crate) activity: Arc<Activity>,
    /// Where it waits for its turn, if anywhere.
    pub(super) turnstiles: Option<Turnstiles>,
}

/// Where clients wait: a node's probes never behind whoever asks anything else.
#[derive(Clone, Debug, Default)]
pub(super) struct Turnstiles {
    probes: Turnstile,
    pub(super) others: Turnstile,
}

impl Place {
    /// Waits until a request on this connection is to be answered, which may be a probe.
    pub(crate) async fn turn(&self, is_probe: bool) {
        if let Some(Turnstiles { probes, others }) = &self.turnstiles
            && self.activity.needs_turn()
        {
            let turnstile = if is_probe { probes } else { others };
            turnstile.clone().pass(self.client).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).held.remove(&self.number);
    }
}

impl Places {
    /// So many, all of them free.
    pub(crate) fn new(most: usize, carries: Carries) -> Self {
        Self { most, carries, turnstiles: None, table: Arc::default() }
    }

    /// With answers in turn, where clients ask without pause.
    pub(crate) fn in_turn(self) -> Self {
        Self { turnstiles: Some(Turnstiles::default()), ..self }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a newcomer, if need be that of another. None where all answers are being made.
    pub(crate) fn take(&self, client: IpAddr) -> Option<Place> {
        let client = client.to_canonical();
        let mut table = self.table();
        let taken: Vec<Taken> = table
            .held
            .iter()
            .map(|(number, held)| {
                let waits_since = held.activity.state().waits_since();
                Taken { number: *number, client: held.client, waits_since }
            })
            .collect();
        match verdict(client, &taken, self.most, self.most / CLIENTS) {
            Verdict::Welcome => {}
            Verdict::InsteadOf(number) => table.end(number),
            Verdict::Full => return None,
        }
        let number = table.next;
        table.next += 1;
        let activity = Arc::new(Activity::begun(self.carries));
        table.held.insert(number, Held { client, activity: activity.clone(), noted: false, task: None });
        drop(table);
        Some(Place { number, table: self.table.clone(), client, activity, turnstiles: self.turnstiles.clone() })
    }

    /// Names the task that serves the connection, to be ended when another takes its place.
    pub(crate) fn serve(&self, place: Place, serve: impl FnOnce(Place) -> AbortHandle) {
        let number = place.number;
        let task = serve(place);
        if let Some(held) = self.table().held.get_mut(&number) {
            held.task = Some(task);
        }
    }

    /// Whether nobody is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.table().held.is_empty()
    }

    /// Ends connections whose clients have let the agent wait for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut table = self.table();
        let mut ended = Vec::new();
        for (number, held) in &mut table.held {
            let overdue = held.activity.state().overdue(now);
            if overdue && held.noted {
                ended.push(*number);
            }
            held.noted = overdue;
        }
        for number in ended {
            table.end(number);
        }
    }
}

#[cfg(test)]
mod tests;
