//! The probes on goroutines that block: attached for as long, or as often, as the budget of the targets allows. One task for
//! each group of links; what it does at each turn is [`crate::budget::Sampler`]'s to say.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use exporter_ebpf::{
    key::{Family, OfTarget as _, SeriesKey},
    wait::Watch,
};
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{
    Agent,
    accounts::Accounts,
    blocked::{self, Raw},
    lease::Lease,
    leftovers,
    links::{GroupKey, Site, attach_each, detach_elsewhere, on_a_small_thread},
    quiet,
    state::Stage,
    turns::Who,
};
use crate::{
    budget::{Sampler, Turn},
    clock::monotonic_ns,
    kernel::{AttachError, Kernel},
    process::Process,
    target::{Feature, Features, Inspection, PlannedProbe},
};

/// The longest that the probes stay attached beyond a window, so that what began in it is seen to end.
const TAIL: Duration = Duration::from_millis(250);
/// How long until attaching is tried again where it failed.
const AGAIN: Duration = Duration::from_mins(1);
/// The longest rest of an idle group's task that nobody wakes.
const REST: Duration = Duration::from_mins(1);
/// How late this may be before the probes come off without it: what a busy machine may cost it, and short, since a stalled agent
/// must not go on costing the programs what nobody counts.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// How long attaching may take: perf events of many targets wait for one another.
const ATTACHING: Duration = Duration::from_secs(10);

/// Everything that one group's task keeps.
struct Driver {
    agent: Agent,
    key: GroupKey,
    generation: u64,
    sampler: Sampler,
    accounts: Accounts,
    /// Whether nothing is to be attached any more.
    given_up: bool,
    /// Whether a profile was being taken of one of them at the last window.
    profiled: bool,
    /// When the last window closed, or the task began.
    covered_until: Instant,
}

/// A time in which the kernel side counted.
#[derive(Clone, Copy, Debug)]
struct Recorded {
    open: Duration,
    /// Begin and end by the kernel side's clock.
    from: u64,
    until: u64,
    /// When the probes were attached.
    began: Instant,
    /// Whether it was all the time there was, and not a window of it.
    in_full: bool,
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
                    let is_off = |it: &Arc<Inspection>| !it.measures_something(Features::NONE.with(Feature::Blocking));
                    matches!(target.stage, Stage::Measured)
                        && target.features.has(Feature::Blocking)
                        && !target.inspection.as_ref().is_some_and(is_off)
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
            accounts: Accounts::default(),
            given_up: false,
            profiled: false,
            covered_until: Instant::now(),
        };
        tokio::spawn(async move {
            driver.accounts.costs = driver.agent.costs().await;
            driver.run().await;
        });
    }
}

impl Driver {
    /// Goes on until the group is no more.
    async fn run(&mut self) {
        while self.group_is_there() && !self.given_up {
            // No cryptography: the clock's last digits are as good as any.
            let random = f64::from(monotonic_ns() as u32 % 10_000) / 10_000.0;
            match self.sampler.turn(random) {
                Turn::Full => {
                    if let Some(lease) = self.attach().await {
                        self.full(&lease).await;
                    }
                }
                Turn::Window { wait, open } => {
                    self.rest(wait).await;
                    if self.group_is_there()
                        && let Some(lease) = self.attach().await
                    {
                        self.window(&lease, open).await;
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
    async fn attach(&mut self) -> Option<Lease<Site>> {
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
            return None;
        };
        let (agent, key) = (self.agent.clone(), self.key);
        let who = Who::of(&process);
        let lease = self.agent.inner.turns.take(who, None, move || held(&agent, &inspection, process, key)).await;
        let lease = match lease {
            Some(Ok(lease)) => lease,
            // That process has ended, and soon is no user any more: another is asked then. Or there was no thread.
            Some(Err(AttachError::Gone { .. })) | None => {
                sleep(Duration::from_secs(1)).await;
                return None;
            }
            Some(Err(error)) => {
                warn!(%error, "blocking is not measured");
                // It would be asked again and again of a program that changes itself.
                self.given_up = matches!(error, AttachError::Patched(_));
                if let Some(group) = self.agent.state().groups.get_mut(&self.key) {
                    group.blocking_error = Some(error.to_string());
                }
                if !self.given_up {
                    sleep(AGAIN).await;
                }
                return None;
            }
        };
        let mut state = self.agent.state();
        match state.groups.get_mut(&self.key) {
            Some(group) if group.generation == self.generation => {
                group.blocking = Some(lease.clone());
                group.blocking_error = None;
                Some(lease)
            }
            _ => {
                drop(state);
                detach_elsewhere(self.key, lease.take().unwrap_or_default());
                None
            }
        }
    }

    /// Detaches; whether the probes were attached until then.
    async fn detach(&mut self, lease: &Lease<Site>) -> bool {
        let links = lease.take();
        let were_attached = links.is_some();
        // On a thread of its own: it may never end, and those that answer scrapes are not without number.
        let (done, detached) = tokio::sync::oneshot::channel::<()>();
        let detach = move || {
            drop(links);
            drop(done);
        };
        if on_a_small_thread(detach).is_ok() {
            let _ = detached.await;
        }
        if let Some(group) = self.agent.state().groups.get_mut(&self.key)
            && group.generation == self.generation
        {
            group.blocking = None;
        }
        were_attached
    }

    /// Ids and process ids of those of whom blocking is measured.
    fn users(&self) -> Vec<(u32, u32)> {
        let state = self.agent.state();
        let Some(group) = state.groups.get(&self.key) else { return Vec::new() };
        let targets = group.users.iter().filter_map(|id| state.targets.get(id));
        targets
            .filter(|target| target.features.has(Feature::Blocking) && matches!(target.stage, Stage::Measured))
            .map(|target| (target.id, target.process.id.pid))
            .collect()
    }

    /// One window. Where this is late, the probes come off without it, and what was recorded until the window's end is right.
    async fn window(&mut self, lease: &Lease<Site>, open: Duration) {
        self.spent();
        let users = self.users();
        let open = self.shortened(&users, open);
        let from = monotonic_ns();
        let until = from + u64::try_from(open.as_nanos()).unwrap_or(u64::MAX);
        let tail = TAIL.min(open / 4);
        if !lease.renew(Instant::now() + open + tail + GRACE) {
            self.detach(lease).await;
            return;
        }
        for (id, pid) in &users {
            self.agent.set_window(*id, *pid, from, until);
        }
        let began = Instant::now();
        sleep(open + tail).await;
        self.close(&users, lease, Recorded { open, from, until, began, in_full: false }).await;
    }

    /// A window that was planned by what the last one cost, which was less where a profile has begun since.
    fn shortened(&mut self, users: &[(u32, u32)], open: Duration) -> Duration {
        let watched = &self.agent.inner.kernel.maps().watched;
        let is_profiled = |(id, pid): &(u32, u32)| {
            watched.get(pid).is_some_and(|watch| watch.target == *id && watch.stacks_from_ns != u64::MAX)
        };
        let profiled = users.iter().any(is_profiled);
        let was = std::mem::replace(&mut self.profiled, profiled);
        if profiled && !was { open.div_f64(self.accounts.costs.times_with_stacks()) } else { open }
    }

    /// Attached all the time, for as long as that is cheap enough.
    async fn full(&mut self, lease: &Lease<Site>) {
        self.spent();
        // Where this looks no more, the probes come off.
        if !lease.renew(Instant::now() + quiet::LOOK + GRACE) {
            self.detach(lease).await;
            return;
        }
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
            self.look_again(lease).await;
            if !self.group_is_there() {
                return;
            }
            let spent = self.spent();
            self.sampler.passed(waiting.elapsed(), spent);
            if waiting.elapsed() > Duration::from_millis(100) {
                self.sampler.burned(waiting.elapsed(), spent);
            }
            if !lease.renew(Instant::now() + quiet::LOOK + GRACE) {
                break;
            }
            if !self.sampler.can_stay() {
                info!(
                    probes = "blocking",
                    "probes cost more than the budget: they are attached for a share of the time from now on"
                );
                break;
            }
        }
        let end = lease.over().unwrap_or_else(Instant::now);
        let until = monotonic_ns().saturating_sub(u64::try_from(end.elapsed().as_nanos()).unwrap_or(u64::MAX));
        for (id, pid) in &users {
            self.agent.set_window(*id, *pid, from, until);
        }
        let open = end.saturating_duration_since(began);
        if lease.over().is_none() {
            sleep(TAIL).await;
        }
        self.close(&users, lease, Recorded { open, from, until, began, in_full: true }).await;
    }

    /// Waits until it should be asked again whether the probes may stay attached: soon, since load comes without notice, but
    /// for idle programs; or until there is another user.
    async fn look_again(&self, lease: &Lease<Site>) {
        let joined = self.agent.state().groups.get(&self.key).map(|it| Arc::clone(&it.joined));
        let Some(joined) = joined else { return };
        let resting = self.sampler.is_quiet();
        if resting {
            let users = self.accounts.resting(&self.agent);
            self.agent.inner.quiet.rest(self.key, users, lease.clone(), Arc::clone(&joined));
        }
        let _ = tokio::time::timeout(if resting { REST } else { quiet::LOOK }, joined.notified()).await;
        self.agent.inner.quiet.woke(self.key);
    }

    /// What the probes have cost since this was last asked, in seconds of the limit.
    fn spent(&mut self) -> f64 {
        let users = self.users();
        self.accounts.spent(&self.agent, &users)
    }

    /// Settles what was seen, takes what has not ended, and detaches.
    async fn close(&mut self, users: &[(u32, u32)], lease: &Lease<Site>, recorded: Recorded) {
        let Recorded { open, from, until, began, in_full } = recorded;
        let window = !in_full;
        let left = leftovers::take(&self.agent, users, from, until).await;
        let were_attached = self.detach(lease).await;
        let attached = began.elapsed();
        let spent = self.spent();
        if window {
            self.sampler.passed(attached, spent);
            // What was spent in the tail belongs to the window that it follows.
            let hit_for = lease.over().map_or(open, |over| over.saturating_duration_since(began));
            self.sampler.burned(hit_for, spent);
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
        if were_attached {
            leftovers::follow(&self.agent, &left, scale);
        } else {
            warn!(probes = "blocking", "they came off by themselves: gopulse did not get to run in time");
            leftovers::lose(&self.agent, &left, scale);
        }
    }
}

/// Attaches: from the moment when it is attached each probe comes off by itself, unless this task sees to it.
fn held(agent: &Agent, inspection: &Inspection, process: Process, key: GroupKey) -> Result<Lease<Site>, AttachError> {
    let reached = agent.reached(key, process);
    let until = Instant::now() + ATTACHING;
    let lease = agent.inner.leases.grant(until, move |links| detach_elsewhere(key, links));
    let wanted = |it: &PlannedProbe| it.feature() == Feature::Blocking;
    let keep = |site| {
        let too_late = |(probe, ..): Site| AttachError::Refused { probe, reason: "the kernel took too long".into() };
        lease.add(site).map_err(too_late)
    };
    match attach_each(&agent.inner.kernel, inspection, &reached, key, wanted, keep) {
        Ok(()) => Ok(lease),
        Err(error) => {
            detach_elsewhere(key, lease.take().unwrap_or_default());
            Err(error)
        }
    }
}

impl Agent {
    /// Tells the kernel side which parks of a process are measured; whether the process is still watched for this target.
    pub(super) fn set_window(&self, id: u32, pid: u32, from: u64, until: u64) -> bool {
        let open = |watch: Watch| {
            let on = watch.on | Feature::Blocking.bit();
            (watch.target == id).then_some(Watch { on, park_from_ns: from, park_until_ns: until, ..watch })
        };
        self.inner.kernel.maps().watched.change(&pid, open)
    }
}

/// What the kernel has counted of these targets' goroutines.
fn raw_of(kernel: &Kernel, users: &[(u32, u32)]) -> io::Result<HashMap<u32, Raw>> {
    let is_user = |target| users.iter().any(|(id, _)| *id == target);
    let mut raw = kernel.maps().series.read(|all: &mut HashMap<u32, Raw>, key, value| {
        if key.family == Family::Blocking as u8 && is_user(key.target()) {
            all.entry(key.target()).or_default().insert(blocked::number(key), *value);
        }
    })?;
    for (id, _) in users {
        let kept = kernel
            .maps()
            .series_states
            .get(*id)
            .ok_or_else(|| io::Error::other("an overflow series cannot be read"))?;
        let overflow = kept.overflow[Family::Blocking as usize];
        if overflow.count() != 0 {
            let key = SeriesKey::overflow(Family::Blocking, *id);
            raw.entry(*id).or_default().insert(blocked::number(&key), overflow);
        }
    }
    Ok(raw)
}
