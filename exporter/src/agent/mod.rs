//! The only place that knows all stations: drives each process from seen to measured to gone, and answers scrapes.

mod accounts;
mod attachment;
mod blocked;
mod blocking;
mod collect;
mod discovery;
mod ends;
mod entries;
mod gone;
mod goroutine;
mod hpa;
mod in_flight;
mod lease;
mod leftovers;
mod links;
mod panics;
mod passed;
mod patience;
mod pods;
mod profile;
mod quiet;
mod recognise;
mod replaced;
mod retired;
mod routes;
mod run_queue;
mod runtime;
mod series;
mod state;
mod turns;
mod view;
mod waits;

pub(crate) use self::{
    discovery::check_pids,
    pods::CHECKS,
    profile::{Ask, NoProfile},
    view::Line,
};

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use exporter_ebpf::event;
use tokio::{
    sync::{Notify, OnceCell, Semaphore, mpsc},
    time::MissedTickBehavior,
};
use tracing::{debug, warn};

use self::{state::State, turns::Who};
use crate::{
    allowance::Allowance,
    budget::{Costs, calibrate},
    config::Config,
    kernel::{Events, Kernel},
    kubernetes::{Change, Pods},
    metrics::Snapshot,
    process::Ports,
};

/// How long after its first sight a process is looked at again for a listening port.
const PORT_LOOKS: [Duration; 4] =
    [Duration::from_millis(30), Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1)];
/// Every so many scans look at every process anew; those between look at processes not seen before. Events tell of changes;
/// this is for events that were lost.
const ROUNDS_OF_A_FULL_SCAN: u64 = 15;
/// How long after an exit event the process should be gone from /proc.
const EXIT_LOOK: Duration = Duration::from_millis(50);

/// What the agent is told, by the kernel, by time, or by its own tasks.
enum Message {
    /// Look at a process: it may be new, changed or gone.
    Look(u32),
    /// It was seen whether the executable of these processes is Go.
    Recognised(Box<recognise::Recognised>),
    /// Look at a process again whose container was not known.
    Place(u32),
    /// Something else is known of these containers.
    Containers(Change),
    /// See that the probes that a target shares are really in it.
    Verify(u32),
    /// They are not.
    Regroup(u32),
    /// A process's executable was read.
    Inspected(Box<attachment::Inspected>),
    /// Probes were attached, or could not be.
    Attached(Box<attachment::Attached>),
}

/// The agent. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Agent {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    kernel: Kernel,
    /// The pods of this node, in Kubernetes mode.
    pods: Option<Pods>,
    state: Mutex<State>,
    /// Never read while the state is locked.
    runtimes: runtime::Runtimes,
    messages: mpsc::UnboundedSender<Message>,
    run_queue: run_queue::RunQueue,
    /// Who may read executables and attach probes.
    turns: turns::Turns,
    /// One profile is taken at a time: the maps of stacks are small.
    profiling: Arc<Semaphore>,
    /// How many more may be taken now.
    profiles: Mutex<Allowance>,
    /// What probes cost on this machine, once it is known.
    costs: OnceCell<Costs>,
    /// Asked by the event loop alone.
    ports: Mutex<Ports>,
    /// The probes on blocking, which come off in time whether or not the runtime goes on.
    leases: lease::Leases<links::Site>,
    /// Groups whose task rests.
    quiet: quiet::Quiet,
    /// Entries of the map of blocked goroutines, as of the last full scan.
    parked_entries: AtomicU64,
    scanned: AtomicBool,
    scrapes: gone::Scrapes,
    exec_events: AtomicU64,
    exit_events: AtomicU64,
    panic_events: AtomicU64,
    /// Wakes what settles panicked requests.
    panicked: Notify,
    /// Wakes what settles requests whose connection was taken over.
    hijacked: Notify,
}

impl Agent {
    /// Puts the agent together; [`Agent::run`] makes it live.
    pub(crate) fn new(
        config: Config,
        kernel: Kernel,
        globs: crate::config::Globs,
        pods: Option<Pods>,
    ) -> (Self, Inbox) {
        let (messages, inbox) = mpsc::unbounded_channel();
        let inner = Inner {
            state: Mutex::new(State::new(globs)),
            runtimes: runtime::Runtimes::default(),
            ports: Mutex::new(Ports::new(&config.select.listen_ports)),
            config,
            kernel,
            pods,
            messages,
            run_queue: run_queue::RunQueue::default(),
            turns: turns::Turns::default(),
            profiling: Arc::new(Semaphore::new(1)),
            profiles: Mutex::new(profile::PROFILES),
            costs: OnceCell::new(),
            leases: lease::Leases::new(),
            quiet: quiet::Quiet::default(),
            parked_entries: AtomicU64::new(0),
            scanned: AtomicBool::new(false),
            scrapes: gone::Scrapes::default(),
            exec_events: AtomicU64::new(0),
            exit_events: AtomicU64::new(0),
            panic_events: AtomicU64::new(0),
            panicked: Notify::new(),
            hijacked: Notify::new(),
        };
        (Self { inner: Arc::new(inner) }, Inbox(inbox))
    }

    /// Runs until the process ends. Never returns on its own.
    pub(crate) async fn run(&self, events: Events, inbox: Inbox) -> std::io::Result<()> {
        let Inbox(mut inbox) = inbox;
        let mut events = events.stream()?;
        self.inner.leases.watch()?;
        let mut scan = tokio::time::interval(Duration::from_secs_f64(self.inner.config.scan_interval_seconds));
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = tokio::time::interval(quiet::LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.settle_panics();
        self.settle_ends();
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

    /// Whether the first scan is over and the pods of this node are known; if not, why; if so, what is being done without.
    pub(crate) fn readiness(&self) -> Result<Option<String>, String> {
        if !self.inner.scanned.load(Ordering::Relaxed) {
            return Err("the first scan of /proc is not over".into());
        }
        let Some(pods) = &self.inner.pods else { return Ok(None) };
        pods.not_ready().map_or_else(|| Ok(pods.degraded()), Err)
    }

    /// Tells the agent that something else is known of these containers.
    pub(crate) fn pods_changed(&self, containers: Change) {
        self.send(Message::Containers(containers));
    }

    /// Counts a scrape; several may share one snapshot.
    pub(crate) fn scraped(&self) {
        self.inner.scrapes.ask();
    }

    /// The figures of now. Blocks for as long as reading the kernel's maps takes.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let number = self.inner.scrapes.begin();
        let snapshot = collect::snapshot(self);
        self.inner.scrapes.end(number);
        snapshot
    }

    /// Every target and what is known of it, and annotations that could not be used.
    pub(crate) fn targets(&self) -> Vec<Line> {
        let turns = &self.inner.turns;
        let waits_for = |id| turns.told(id);
        let targets = self.state().views(self.inner.kernel.method(), self.inner.kernel.lacks(), waits_for);
        let refused = self.inner.pods.as_ref().map(Pods::problems).unwrap_or_default();
        let targets = targets.into_iter().map(|it| Line::Target(Box::new(it)));
        let passed = self.passed().into_iter().map(Line::Passed);
        targets.chain(passed).chain(refused.into_iter().map(Line::Refused)).collect()
    }

    /// Detaches everything, at once, as far as the kernel does so in this time.
    pub(crate) fn shut_down(&self, patience: Duration) {
        let groups = self.state().take_groups();
        links::detach_in_parallel(groups, patience);
    }

    /// What probes cost on this machine: measured the first time it is asked for.
    async fn costs(&self) -> Costs {
        let agent = self.clone();
        let measured = self.inner.costs.get_or_init(|| async move {
            let measured = tokio::task::spawn_blocking(move || calibrate(&agent.inner.kernel)).await;
            match measured {
                Ok(Ok(costs)) => {
                    debug!(?costs, "what probes cost was measured");
                    costs
                }
                Ok(Err(error)) => {
                    warn!(error, "what probes cost could not be measured: typical figures are used");
                    Costs::default()
                }
                Err(_) => Costs::default(),
            }
        });
        *measured.await
    }

    /// Does what waits for the kernel away from the event loop, in its owner's turn; `target` is for whom, if that is one. What
    /// answers scrapes never waits for it.
    fn elsewhere(&self, who: Who, target: Option<u32>, work: impl FnOnce(&Self) + Send + 'static) {
        let agent = self.clone();
        tokio::spawn(async move {
            let turns = agent.inner.turns.clone();
            turns.take(who, target, move || work(&agent)).await;
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        match message {
            Message::Look(pid) => self.look(pid),
            Message::Recognised(outcome) => self.recognised(*outcome),
            Message::Verify(id) => self.verify(id),
            Message::Regroup(id) => self.regroup(id),
            Message::Place(pid) => self.place_again(pid),
            Message::Containers(containers) => self.containers_changed(&containers),
            Message::Inspected(outcome) => self.inspected(*outcome),
            Message::Attached(outcome) => self.attached(*outcome),
        }
    }

    fn later(&self, delay: Duration, message: Message) {
        let agent = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            agent.send(message);
        });
    }

    fn send(&self, message: Message) {
        if self.inner.messages.send(message).is_err() {
            debug!("the agent is shutting down");
        }
    }
}

/// The receiving end of the agent's messages.
pub(crate) struct Inbox(mpsc::UnboundedReceiver<Message>);
