//! What the task of one group does at each turn.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::spawn_blocking, time::sleep};
use tracing::{debug, info, warn};

use super::{Driver, GRACE, REST, Recorded, TAIL};
use crate::{
    agent::{blocked, groups::Site, lease::Lease, leftovers, quiet, registry::Stage},
    budget::Turn,
    clock::monotonic_ns,
    target::Feature,
};

impl Driver {
    /// Goes on until the group is no more.
    pub(super) async fn run(&mut self) {
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
        self.spent().await;
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
        let windows = &self.agent.inner.kernel.maps().windows;
        let is_profiled =
            |(id, _): &(u32, u32)| windows.get(*id).is_some_and(|window| window.stacks_from_ns != u64::MAX);
        let profiled = users.iter().any(is_profiled);
        let was = std::mem::replace(&mut self.profiled, profiled);
        if profiled && !was { open.div_f64(self.accounts.costs.times_with_stacks()) } else { open }
    }

    /// Attached all the time, for as long as that is cheap enough, which is tried where it is not known.
    async fn full(&mut self, lease: &Lease<Site>) {
        self.spent().await;
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
            let spent = self.spent().await;
            self.sampler.stayed(waiting.elapsed(), spent);
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
            sleep(TAIL.min(open / 4)).await;
        }
        self.close(&users, lease, Recorded { open, from, until, began, in_full: true }).await;
    }

    /// Waits until it should be asked again whether the probes may stay attached: soon, since load comes without notice, but
    /// for idle programs; or until there is another user.
    async fn look_again(&self, lease: &Lease<Site>) {
        if !self.group_is_there() {
            return;
        }
        let resting = self.sampler.is_quiet();
        if resting {
            let users = self.accounts.resting(&self.agent);
            self.agent.inner.quiet.rest(self.key, users, lease.clone(), Arc::clone(&self.joined));
        }
        let look = if resting { REST } else { self.sampler.trial().unwrap_or(quiet::LOOK) };
        let _ = tokio::time::timeout(look, self.joined.notified()).await;
        self.agent.inner.quiet.woke(self.key);
    }

    /// What the probes have cost since this was last asked, in seconds of the limit. It reads how much CPU time the users have
    /// had, which it does on another thread.
    async fn spent(&mut self) -> f64 {
        let (users, agent) = (self.users(), self.agent.clone());
        let mut accounts = std::mem::take(&mut self.accounts);
        let costs = accounts.costs;
        let asked = spawn_blocking(move || {
            let spent = accounts.spent(&agent, &users);
            (accounts, spent)
        });
        let (accounts, spent) = asked.await.unwrap_or_default();
        self.accounts = accounts;
        self.accounts.costs = costs;
        spent
    }

    /// Settles what was seen, takes what has not ended, and detaches.
    async fn close(&mut self, users: &[(u32, u32)], lease: &Lease<Site>, recorded: Recorded) {
        let Recorded { open, from, until, began, in_full } = recorded;
        let window = !in_full;
        let left = leftovers::take(&self.agent, users, from, until).await;
        let were_attached = self.detach(lease).await;
        let attached = began.elapsed();
        let spent = self.spent().await;
        if window {
            self.sampler.passed(attached, spent);
            // What was spent in the tail belongs to the window that it follows.
            let hit_for = lease.over().map_or(open, |over| over.saturating_duration_since(began));
            self.sampler.burned(hit_for, spent);
        }
        let now = Instant::now();
        let period = now.saturating_duration_since(self.covered_until);
        let scale = if window { blocked::scale(open, period) } else { 1.0 };
        let until = if window { now } else { began + open };
        // A part would be taken for less than before, and the rest be counted again. Nothing is counted until it can be read.
        loop {
            if self.agent.store(users, window.then_some(period), open, until).await {
                break;
            }
            if !self.group_is_there() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
        self.covered_until = until;
        debug!(?open, ?period, left = left.len(), spent, "blocking was measured");
        if were_attached {
            leftovers::follow(&self.agent, &left, scale);
        } else {
            warn!(probes = "blocking", "they came off by themselves: gopulse did not get to run in time");
            leftovers::lose(&self.agent, &left, scale);
        }
    }
}
