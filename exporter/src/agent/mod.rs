//! The only place that knows all stations: drives each process from seen to measured to gone, and answers scrapes.

mod accounts;
mod act;
mod attachment;
mod blocked;
mod blocking;
mod bury;
mod check;
mod collect;
mod discovery;
mod ends;
mod entries;
mod follow;
mod gone;
mod goroutine;
mod groups;
mod hold;
mod hpa;
mod in_flight;
mod labeller;
mod lease;
mod ledger;
mod leftovers;
mod links;
mod panics;
mod passed;
mod patience;
mod pods;
mod profile;
mod quiet;
mod reading;
mod recognise;
mod registry;
mod replaced;
mod routes;
mod run_queue;
mod runtime;
mod together;
mod turns;
mod view;
mod waits;

pub(crate) use self::{
    check::check_pids,
    hold::Hold,
    pods::CHECKS,
    profile::{Ask, NoProfile},
    view::Line,
};

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, OnceCell, Semaphore, mpsc};
use tracing::{debug, warn};

use self::{
    follow::Message,
    groups::Site,
    hold::{Brief, Guard},
    ledger::Ledger,
    registry::Registry,
    routes::Routes,
};
use crate::{
    allowance::Allowance,
    budget::{Costs, calibrate},
    config::Config,
    kernel::Kernel,
    kubernetes::{Change, Pods},
    metrics::Snapshot,
    process::Ports,
};

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
    /// Which processes are wanted by the name of their executable.
    globs: crate::config::Globs,
    /// Held for microseconds: nothing is read of a process, of a file or of a kernel's map meanwhile.
    state: Brief<Registry>,
    /// Held for microseconds too. Whoever holds it may take the lock of the state, and not the other way round.
    ledger: Brief<Ledger>,
    /// Asked by whoever makes labels of series: scrapes, one after another, and who buries targets.
    routes: Mutex<Routes>,
    /// The tasks of the machine, just before the last scan.
    census: Mutex<Option<crate::process::Census>>,
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
    leases: lease::Leases<Site>,
    /// Tasks that drive these probes.
    drivers: blocking::Drivers,
    /// Who asks for what was counted of blocked goroutines, once a window has closed.
    blocked: together::Together<blocked::Raw>,
    /// Who asks which goroutines wait then.
    waiting: together::Together<Vec<(u64, exporter_ebpf::wait::Parked)>>,
    /// Groups whose task rests.
    quiet: quiet::Quiet,
    /// Entries of the map of blocked goroutines, as of the last full scan.
    parked_entries: AtomicU64,
    scanned: AtomicBool,
    /// Whether a thread forgets ended targets.
    burying: AtomicBool,
    /// Whether ended targets are to be forgotten soon.
    burial_is_planned: AtomicBool,
    /// When and how long the last was.
    buried: Mutex<Option<bury::Buried>>,
    /// Tells the thread that follows processes that the process is about to end.
    ended: Notify,
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
            state: Brief::new(Registry::new(!config.select.listen_ports.is_empty())),
            ledger: Brief::new(Ledger::default()),
            routes: Mutex::default(),
            census: Mutex::default(),
            globs,
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
            drivers: blocking::Drivers::default(),
            blocked: together::Together::default(),
            waiting: together::Together::default(),
            quiet: quiet::Quiet::default(),
            parked_entries: AtomicU64::new(0),
            scanned: AtomicBool::new(false),
            burying: AtomicBool::new(false),
            burial_is_planned: AtomicBool::new(false),
            buried: Mutex::new(None),
            ended: Notify::new(),
            scrapes: gone::Scrapes::default(),
            exec_events: AtomicU64::new(0),
            exit_events: AtomicU64::new(0),
            panic_events: AtomicU64::new(0),
            panicked: Notify::new(),
            hijacked: Notify::new(),
        };
        (Self { inner: Arc::new(inner) }, Inbox(inbox))
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

    /// Every target and what is known of it, and annotations that could not be used. Blocks for as long as looking at processes
    /// takes.
    pub(crate) fn targets(&self) -> Vec<Line> {
        let targets = self.views();
        let refused = self.inner.pods.as_ref().map(Pods::problems).unwrap_or_default();
        let targets = targets.into_iter().map(|it| Line::Target(Box::new(it)));
        let passed = self.passed().into_iter().map(Line::Passed);
        targets.chain(passed).chain(refused.into_iter().map(Line::Refused)).collect()
    }

    /// The longest time for which the lock on the targets, or that on what is counted, was held since this was last asked, and where
    /// in the code.
    pub(crate) fn longest_hold(&self) -> Option<Hold> {
        let both = [self.inner.state.take_longest(), self.inner.ledger.take_longest()];
        both.into_iter().flatten().max_by_key(|hold| hold.took)
    }

    /// Detaches everything, at once, as far as the kernel does so in this time.
    pub(crate) fn shut_down(&self, patience: Duration) {
        self.inner.ended.notify_one();
        let groups = self.state().groups.take_all();
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

    /// The life cycle of targets, for microseconds: nothing is read of a process, a file or a kernel's map while it is held.
    #[track_caller]
    fn state(&self) -> Guard<'_, Registry> {
        self.inner.state.lock()
    }
}

/// The receiving end of the agent's messages.
pub(crate) struct Inbox(mpsc::UnboundedReceiver<Message>);
