//! The probes on goroutines that block: attached for as long, or as often, as the budget of the targets allows. One task for
//! each group of links; what it does at each turn is [`crate::budget::Sampler`]'s to say.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use exporter_ebpf::wait::{Watch, flag, kind};
use tokio::{task::spawn_blocking, time::sleep};
use tracing::{debug, info, warn};

use super::{
    Agent,
    blocked::Raw,
    leftovers,
    links::{GroupKey, attach_all, detach_elsewhere},
    quiet,
    state::Stage,
};
use crate::{
    budget::{Costs, Sampler, Turn},
    clock::monotonic_ns,
    kernel::{AttachError, Kernel},
    process,
    target::Measure,
};

/// The longest that the probes stay attached beyond a window, so that what began in it is seen to end.
const TAIL: Duration = Duration::from_millis(250);
/// How long until attaching is tried again where it failed.
const AGAIN: Duration = Duration::from_mins(1);
/// The longest rest of an idle group's task that nobody wakes.
const REST: Duration = Duration::from_mins(1);

/// A user of a group, as the budget sees it.
#[derive(Clone, Copy, Debug)]
struct Account {
    hits: (u64, u64),
    at: Instant,
    /// CPU seconds that it had used at some time.
    cpu: Option<(Instant, f64)>,
    /// CPUs that it used of late, one at least.
    cpus: f64,
}

/// Everything that one group's task keeps.
struct Driver {
    agent: Agent,
    key: GroupKey,
    generation: u64,
    sampler: Sampler,
    costs: Costs,
    accounts: HashMap<u32, Account>,
    /// When the last window closed, or the task began.
    covered_until: Instant,
}

impl Agent {
    /// Sees to it that blocking is measured of a group of which a user asks for it.
    pub(super) fn measure_blocking(&self, key: GroupKey) {
        let generation = {
            let mut state = self.state();
            let state = &mut *state;
            let Some(group) = state.groups.get_mut(&key) else { return };
            let asks = |id: &u32| {
                state.targets.get(id).is_some_and(|target| {
                    matches!(target.stage, Stage::Measured) && target.features.has(Measure::Blocking)
                })
            };
            if group.driven || !group.is_attached() || !group.users.iter().any(asks) {
                return;
            }
            group.driven = true;
            group.generation
        };
        let mut driver = Driver {
            agent: self.clone(),
            key,
            generation,
            sampler: Sampler::new(),
            costs: Costs::default(),
            accounts: HashMap::new(),
            covered_until: Instant::now(),
        };
        tokio::spawn(async move {
            driver.costs = driver.agent.costs().await;
            driver.run().await;
        });
    }
}

impl Driver {
    /// Goes on until the group is no more.
    async fn run(&mut self) {
        while self.group_is_there() {
            // No cryptography: the clock's last digits are as good as any.
            let random = f64::from(monotonic_ns() as u32 % 10_000) / 10_000.0;
            match self.sampler.turn(random) {
                Turn::Full => {
                    if self.attach().await {
                        self.full().await;
                    }
                }
                Turn::Window { wait, open } => {
                    self.rest(wait).await;
                    if self.group_is_there() && self.attach().await {
                        self.window(open).await;
                    }
                }
            }
        }
    }

    fn group_is_there(&self) -> bool {
        self.agent.state().groups.get(&self.key).is_some_and(|group| group.generation == self.generation)
    }

    async fn rest(&mut self, wait: Duration) {
        let mut left = wait;
        while !left.is_zero() && self.group_is_there() {
            let piece = left.min(Duration::from_secs(1));
            sleep(piece).await;
            self.sampler.passed(piece, 0.0);
            left -= piece;
        }
    }

    /// Attaches; where that fails, waits.
    async fn attach(&mut self) -> bool {
        let found = {
            let state = self.agent.state();
            let group = state.groups.get(&self.key);
            group.and_then(|group| {
                group.users.iter().find_map(|id| {
                    let target = state.targets.get(id)?;
                    Some((target.inspection.clone()?, target.process.clone()))
                })
            })
        };
        let Some((inspection, process)) = found else {
            sleep(Duration::from_secs(1)).await;
            return false;
        };
        let (agent, key) = (self.agent.clone(), self.key);
        let Ok(turn) = self.agent.inner.turns.acquire().await else { return false };
        let links = spawn_blocking(move || {
            attach_all(&agent.inner.kernel, &inspection, &process, key, |it| it.measure() == Measure::Blocking)
        })
        .await;
        drop(turn);
        let links = match links {
            Ok(Ok(links)) => links,
            // That process has ended, and soon is no user any more: another is asked then.
            Ok(Err(AttachError::Gone { .. })) => {
                sleep(Duration::from_secs(1)).await;
                return false;
            }
            Ok(Err(error)) => {
                warn!(%error, "blocking is not measured");
                if let Some(group) = self.agent.state().groups.get_mut(&self.key) {
                    group.blocking_error = Some(error.to_string());
                }
                sleep(AGAIN).await;
                return false;
            }
            Err(_) => return false,
        };
        let mut state = self.agent.state();
        match state.groups.get_mut(&self.key) {
            Some(group) if group.generation == self.generation => {
                group.blocking = links;
                group.blocking_error = None;
                true
            }
            _ => {
                drop(state);
                detach_elsewhere(self.key, links);
                false
            }
        }
    }

    async fn detach(&mut self) {
        let links = {
            let mut state = self.agent.state();
            let group = state.groups.get_mut(&self.key).filter(|group| group.generation == self.generation);
            group.map(|group| std::mem::take(&mut group.blocking))
        };
        let _ = spawn_blocking(move || drop(links)).await;
    }

    /// Ids and process ids of those of whom blocking is measured.
    fn users(&self) -> Vec<(u32, u32)> {
        let state = self.agent.state();
        let Some(group) = state.groups.get(&self.key) else { return Vec::new() };
        let targets = group.users.iter().filter_map(|id| state.targets.get(id));
        targets
            .filter(|target| target.features.has(Measure::Blocking) && matches!(target.stage, Stage::Measured))
            .map(|target| (target.id, target.process.id.pid))
            .collect()
    }

    /// One window.
    async fn window(&mut self, open: Duration) {
        self.spent();
        let users = self.users();
        let from = monotonic_ns();
        let until = from + u64::try_from(open.as_nanos()).unwrap_or(u64::MAX);
        for (id, pid) in &users {
            self.agent.set_window(*id, *pid, from, until);
        }
        let began = Instant::now();
        sleep(open).await;
        sleep(TAIL.min(open / 4)).await;
        self.close(&users, open, from, until, began, true).await;
    }

    /// Attached all the time, for as long as that is cheap enough.
    async fn full(&mut self) {
        self.spent();
        let from = monotonic_ns();
        let began = Instant::now();
        let mut users: Vec<(u32, u32)> = Vec::new();
        loop {
            for (id, pid) in self.users() {
                if !users.contains(&(id, pid)) && self.agent.set_window(id, pid, monotonic_ns(), u64::MAX) {
                    users.push((id, pid));
                    let mut state = self.agent.state();
                    if let Some(target) = state.targets.get_mut(&id) {
                        target.blocked.opened_for_good(began.saturating_duration_since(self.covered_until));
                    }
                }
            }
            let waiting = Instant::now();
            self.look_again().await;
            if !self.group_is_there() {
                return;
            }
            let spent = self.spent();
            self.sampler.passed(waiting.elapsed(), spent);
            if waiting.elapsed() > Duration::from_millis(100) {
                self.sampler.burned(waiting.elapsed(), spent);
            }
            if !self.sampler.can_stay() {
                break;
            }
        }
        info!(
            probes = "blocking",
            "probes cost more than the budget: they are attached for a share of the time from now on"
        );
        let until = monotonic_ns();
        for (id, pid) in &users {
            self.agent.set_window(*id, *pid, from, until);
        }
        let open = began.elapsed();
        sleep(TAIL).await;
        self.close(&users, open, from, until, began, false).await;
    }

    /// Waits until it should be asked again whether the probes may stay attached: soon, since load comes without notice, but
    /// for idle programs; or until there is another user.
    async fn look_again(&self) {
        let joined = self.agent.state().groups.get(&self.key).map(|it| Arc::clone(&it.joined));
        let Some(joined) = joined else { return };
        let resting = self.sampler.is_quiet();
        if resting {
            self.agent.inner.quiet.rest(self.key, self.resting(), Arc::clone(&joined));
        }
        let _ = tokio::time::timeout(if resting { REST } else { quiet::LOOK }, joined.notified()).await;
        self.agent.inner.quiet.woke(self.key);
    }

    /// Whose hits end a rest, and how many: what is still idle at the budget of each.
    fn resting(&self) -> Vec<quiet::User> {
        let state = self.agent.state();
        let user = |(id, account): (&u32, &Account)| {
            let limit = state.targets.get(id).map_or(0.0, |target| target.budget);
            let spent = limit * crate::budget::QUIET * quiet::LOOK.as_secs_f64();
            let most = (spent / self.costs.park.max(self.costs.run)) as u64;
            quiet::User { id: *id, hits: account.hits.0 + account.hits.1, most }
        };
        self.accounts.iter().map(user).collect()
    }

    /// Settles what was seen, takes what has not ended, and detaches.
    async fn close(
        &mut self,
        users: &[(u32, u32)],
        open: Duration,
        from: u64,
        until: u64,
        began: Instant,
        window: bool,
    ) {
        let left = leftovers::take(&self.agent, users, from, until).await;
        self.detach().await;
        let attached = began.elapsed();
        let spent = self.spent();
        if window {
            self.sampler.passed(attached, spent);
            // What was spent in the tail belongs to the window that it follows.
            self.sampler.burned(open, spent);
        }
        let now = Instant::now();
        let period = now.saturating_duration_since(self.covered_until);
        let scale = if window { super::blocked::scale(open, period) } else { 1.0 };
        // A part would be taken for less than before, and the rest be counted again. Nothing is counted until it can be read.
        let raw = loop {
            match raw_of(&self.agent.inner.kernel, users) {
                Ok(raw) => break raw,
                Err(_) if self.group_is_there() => sleep(Duration::from_secs(1)).await,
                Err(_) => return,
            }
        };
        {
            let mut state = self.agent.state();
            for (id, pid) in users {
                let Some(target) = state.targets.get_mut(id).filter(|target| target.process.id.pid == *pid) else {
                    continue;
                };
                let raw = raw.get(id).cloned().unwrap_or_default();
                if window {
                    target.blocked.closed(raw, open, period, now);
                } else {
                    target.blocked.closed_for_good(raw, open, began + open);
                }
            }
        }
        self.covered_until = if window { now } else { began + open };
        debug!(?open, ?period, left = left.len(), spent, "blocking was measured");
        leftovers::follow(&self.agent, &left, scale);
    }

    /// What the probes have cost since this was last asked, of the user who is nearest to the limit, in seconds of the limit.
    fn spent(&mut self) -> f64 {
        let users = self.users();
        let mut worst: f64 = 0.0;
        self.accounts.retain(|id, _| users.iter().any(|(user, _)| user == id));
        for (id, pid) in users {
            let Some(limit) = self.agent.state().targets.get(&id).map(|target| target.budget) else { continue };
            let Some(kept) = self.agent.inner.kernel.maps().watch_states.get(id) else { continue };
            let hits = (kept.parks, kept.runs);
            let now = Instant::now();
            let before = self.accounts.get(&id).copied();
            let cost = before.map_or(0.0, |before| {
                hits.0.saturating_sub(before.hits.0) as f64 * self.costs.park
                    + hits.1.saturating_sub(before.hits.1) as f64 * self.costs.run
            });
            let elapsed = before.map_or(0.0, |before| now.duration_since(before.at).as_secs_f64());
            // A program may spend the share of the CPU time it uses, or of one CPU where it uses less.
            let mut cpus = before.map_or(1.0, |before| before.cpus);
            let mut cpu = before.and_then(|before| before.cpu);
            let since = cpu.map_or(Duration::MAX, |(at, _): (Instant, f64)| now.duration_since(at));
            if since > Duration::from_secs(1) && (before.is_none() || cost > limit * elapsed * 0.5) {
                let used = process::Stat::read(pid).map_or(0.0, |stat| stat.cpu_seconds);
                if let Some((_, before)) = cpu {
                    cpus = ((used - before) / since.as_secs_f64()).max(1.0);
                }
                cpu = Some((now, used));
            }
            worst = worst.max(cost / (limit * cpus));
            self.accounts.insert(id, Account { hits, at: now, cpu, cpus });
        }
        worst
    }
}

impl Agent {
    /// Tells the kernel side which parks of a process are measured; whether the process is still watched for this target.
    pub(super) fn set_window(&self, id: u32, pid: u32, from: u64, until: u64) -> bool {
        let open = |watch: Watch| {
            let flags = watch.flags | flag::BLOCKING;
            (watch.target == id).then_some(Watch { flags, park_from_ns: from, park_until_ns: until, ..watch })
        };
        self.inner.kernel.maps().watched.change(&pid, open)
    }
}

/// What the kernel has counted of these targets' goroutines.
fn raw_of(kernel: &Kernel, users: &[(u32, u32)]) -> io::Result<HashMap<u32, Raw>> {
    kernel.maps().waits.read(|all: &mut HashMap<u32, Raw>, key, value| {
        if key.kind == kind::BLOCKED && users.iter().any(|(id, _)| *id == key.target) {
            all.entry(key.target).or_default().insert(key.reason, *value);
        }
    })
}
