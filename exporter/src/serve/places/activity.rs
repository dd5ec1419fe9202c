//! What a connection is at, and for whom it waits: its client, or the agent. Knows nothing of other connections.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// For TLS's handshake and the head of a request, together, from the first byte or from the connection on.
pub(super) const HEAD: Duration = Duration::from_secs(5);
/// For the next request on a connection that is kept: longer than most scrape intervals.
pub(super) const KEPT: Duration = Duration::from_mins(2);
/// For a client to take some more of its answer.
pub(super) const STALL: Duration = Duration::from_secs(5);

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
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
pub(super) struct State {
    pub(super) carries: Carries,
    pub(super) phase: Phase,
    /// Since when the client has taken nothing of what was written.
    pub(super) stalled: Option<Instant>,
    pub(super) turn: Turn,
}

/// Whether a connection has had its turn at the [`Turnstile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// No, and nothing is written before.
    Awaited,
    /// Yes, for its handshake: its first request is answered by the same.
    Ahead,
    /// Yes, and a request has used it: the next needs another.
    Used,
}

impl State {
    /// Since when the client has been waited for.
    pub(super) fn waits_since(self) -> Option<Instant> {
        match self.phase {
            Phase::Kept(since) | Phase::Head(since) => Some(since),
            Phase::Answer(_) => self.stalled,
        }
    }

    pub(super) fn overdue(self, now: Instant) -> bool {
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
    pub(super) fn begun(carries: Carries) -> Self {
        Self(Mutex::new(State { carries, phase: Phase::Head(Instant::now()), stalled: None, turn: Turn::Awaited }))
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) fn state(&self) -> State {
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
    pub(in crate::serve) fn may_write(&self) -> bool {
        self.state().turn != Turn::Awaited
    }

    /// Its turn has come before it has asked anything.
    pub(in crate::serve) fn enters(&self) {
        self.change(|it| it.turn = Turn::Ahead);
    }

    /// A request is to be answered. Whether it needs a turn of its own.
    pub(super) fn needs_turn(&self) -> bool {
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
