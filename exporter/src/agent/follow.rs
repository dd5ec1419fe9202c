//! The loop that follows processes, on a thread of its own: what the kernel, time and the agent's own threads tell goes to the
//! registry. Whatever may wait for a file system, a program's memory or the kernel is done on other threads.

use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant, SystemTime},
};

use exporter_ebpf::event;
use tokio::{runtime::Handle, sync::oneshot, time::MissedTickBehavior};
use tracing::{debug, warn};

use super::{
    Agent, Inbox, attachment, quiet, recognise,
    registry::{self, Moment},
    turns::Who,
};
use crate::{kernel::Events, kubernetes::Change, process::Process};

/// Every so many scans look at every process anew; those between look at processes not seen before. Events tell of changes;
/// this is for events that were lost.
const ROUNDS_OF_A_FULL_SCAN: u64 = 15;
/// How long after an exit event the process should be gone from /proc.
const EXIT_LOOK: Duration = Duration::from_millis(50);

/// What the agent is told, by the kernel, by time, or by its own tasks.
pub(super) enum Message {
    /// Look at a process: it may be new, changed or gone.
    Look(u32),
    /// It was seen whether the executable of these processes is Go.
    Recognised(Box<recognise::Recognised>),
    /// Look at a process again whose container was not known.
    Place(u32),
    /// Something else is known of these containers.
    Containers(Change),
    /// The probes that a target shares are not in its memory.
    Regroup(u32),
    /// A process's executable was read.
    Inspected(Box<registry::Inspected>),
    /// Probes were attached, or could not be.
    Attached(Box<attachment::Outcome>),
    /// A target dropped pages of its code; whether the probes are there again.
    CodeReplaced { id: u32, back: bool },
}

impl Agent {
    /// Runs until the process ends. Never returns on its own, but with an error.
    ///
    /// # Errors
    /// Why targets cannot be followed any more.
    pub(crate) async fn run(&self, events: Events, inbox: Inbox) -> std::io::Result<()> {
        self.inner.leases.watch()?;
        self.settle_panics();
        self.settle_ends();
        // What reads /proc and the kernel's maps has a thread of its own, so that it keeps nobody from an answer.
        let (tell, told) = oneshot::channel();
        let (agent, runtime) = (self.clone(), Handle::current());
        let follow = async move {
            tokio::select! {
                // First, since the runtime's timers cannot be asked any more once it has shut down.
                biased;
                () = agent.inner.ended.notified() => Ok(()),
                result = agent.follow(events, inbox) => result,
            }
        };
        let follow = move || drop(tell.send(runtime.block_on(follow)));
        thread::Builder::new().name("lifecycle".into()).spawn(follow)?;
        told.await.unwrap_or_else(|_| Err(std::io::Error::other("the thread that follows processes broke down")))
    }

    /// Follows processes, on the thread of its own.
    async fn follow(&self, events: Events, Inbox(mut inbox): Inbox) -> std::io::Result<()> {
        let mut events = events.stream()?;
        let mut scan = tokio::time::interval(Duration::from_secs_f64(self.inner.config.scan_interval_seconds));
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = tokio::time::interval(quiet::LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rounds: u64 = 0;
        loop {
            tokio::select! {
                batch = events.next() => {
                    for event in batch? {
                        self.on_event(event);
                    }
                }
                Some(message) = inbox.recv() => self.on_message(message),
                _ = looks.tick() => self.wake_busy(),
                _ = scan.tick() => {
                    self.scan(rounds.is_multiple_of(ROUNDS_OF_A_FULL_SCAN));
                    rounds += 1;
                    self.inner.scanned.store(true, Ordering::Relaxed);
                }
            }
        }
    }

    /// Now.
    pub(super) fn moment(&self) -> Moment {
        Moment { at: Instant::now(), wall: SystemTime::now(), snapshots_begun: self.inner.scrapes.begun() }
    }

    /// Does what waits for the kernel away from the event loop, in its owner's turn; `target` is for whom, if that is one. What
    /// answers scrapes never waits for it.
    pub(super) fn elsewhere(&self, who: Who, target: Option<u32>, work: impl FnOnce(&Self) + Send + 'static) {
        let agent = self.clone();
        tokio::spawn(async move {
            let turns = agent.inner.turns.clone();
            turns.take(who, target, move || work(&agent)).await;
        });
    }

    /// The same of work that reads the executable of a target. What runs when gopulse starts is read without waiting: nobody
    /// chooses the moment.
    pub(super) fn read_elsewhere(
        &self,
        who: Who,
        target: u32,
        process: Process,
        work: impl FnOnce(&Self) + Send + 'static,
    ) {
        if !self.inner.scanned.load(Ordering::Relaxed) {
            self.elsewhere(who, Some(target), work);
            return;
        }
        let agent = self.clone();
        tokio::spawn(async move {
            let turns = agent.inner.turns.clone();
            let of = agent.clone();
            let is_known = move || of.state().files.known(&process).is_some();
            turns.read(who, target, is_known, move || work(&agent)).await;
        });
    }

    fn on_event(&self, event: event::Event) {
        match event.kind {
            event::EXEC => {
                self.inner.exec_events.fetch_add(1, Ordering::Relaxed);
                self.look(event.pid);
            }
            event::EXIT => {
                self.inner.exit_events.fetch_add(1, Ordering::Relaxed);
                self.later(EXIT_LOOK, Message::Look(event.pid));
            }
            event::PANIC => {
                self.inner.panic_events.fetch_add(1, Ordering::Relaxed);
                self.inner.panicked.notify_one();
            }
            event::HIJACK => self.inner.hijacked.notify_one(),
            event::IN_FLIGHT_FULL => self.make_room_at_once(),
            other => warn!(kind = other, "unknown event from the kernel side"),
        }
    }

    fn on_message(&self, message: Message) {
        let now = self.moment();
        match message {
            Message::Look(pid) => self.look(pid),
            Message::Recognised(outcome) => {
                let effects = self.state().recognised(&outcome.process, outcome.kind);
                self.act(effects);
            }
            Message::Regroup(id) => {
                let effects = self.state().regroup(id);
                self.act(effects);
            }
            Message::Place(pid) => {
                let effects = self.state().place_again(pid);
                self.act(effects);
            }
            Message::Containers(containers) => self.containers_changed(&containers),
            Message::Inspected(outcome) => {
                let effects = self.state().inspected(*outcome, self.inner.config.max_routes);
                self.act(effects);
            }
            Message::Attached(outcome) => {
                let attachment::Outcome { attached, _underway } = *outcome;
                let effects = self.state().attached(attached, now);
                self.act(effects);
            }
            Message::CodeReplaced { id, back } => {
                let effects = self.state().code_replaced(id, back);
                self.act(effects);
            }
        }
    }

    pub(super) fn later(&self, delay: Duration, message: Message) {
        let agent = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            agent.send(message);
        });
    }

    pub(super) fn send(&self, message: Message) {
        if self.inner.messages.send(message).is_err() {
            debug!("the agent is shutting down");
        }
    }
}
