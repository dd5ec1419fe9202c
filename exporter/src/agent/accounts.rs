//! What the probes on blocking cost each user of a group, by their hits and what a hit costs. Knows nothing of when they are
//! attached.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use exporter_ebpf::wait::WaitState;

use super::{Agent, quiet};
use crate::{
    budget::{Costs, QUIET},
    process,
};

/// A user of a group, as the budget sees it.
#[derive(Clone, Copy, Debug)]
struct Account {
    kept: WaitState,
    at: Instant,
    /// CPU seconds that it had used at some time.
    cpu: Option<(Instant, f64)>,
    /// CPUs that it used of late, one at least.
    cpus: f64,
}

/// The users of a group, by id.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    pub(super) costs: Costs,
    of: HashMap<u32, Account>,
}

/// Hits of the probes on blocking from one time to another.
fn since(before: &WaitState, now: &WaitState) -> WaitState {
    WaitState {
        parks: now.parks.saturating_sub(before.parks),
        runs: now.runs.saturating_sub(before.runs),
        stacks: now.stacks.wrapping_sub(before.stacks),
        ..WaitState::default()
    }
}

impl Accounts {
    /// What the probes have cost since this was last asked, of the user who is nearest to the limit, in seconds of the limit.
    pub(super) fn spent(&mut self, agent: &Agent, users: &[(u32, u32)]) -> f64 {
        let mut worst: f64 = 0.0;
        self.of.retain(|id, _| users.iter().any(|(user, _)| user == id));
        for &(id, pid) in users {
            let Some(limit) = agent.state().targets.get(&id).map(|target| target.budget) else { continue };
            let Some(kept) = agent.inner.kernel.maps().wait_states.get(id) else { continue };
            let now = Instant::now();
            let before = self.of.get(&id).copied();
            let cost = before.map_or(0.0, |before| self.costs.of_blocking(&since(&before.kept, &kept)));
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
            self.of.insert(id, Account { kept, at: now, cpu, cpus });
        }
        worst
    }

    /// Whose hits end a rest, and how many: what is still idle at the budget of each.
    pub(super) fn resting(&self, agent: &Agent) -> Vec<quiet::User> {
        let state = agent.state();
        let user = |(id, account): (&u32, &Account)| {
            let limit = state.targets.get(id).map_or(0.0, |target| target.budget);
            let spent = limit * QUIET * quiet::LOOK.as_secs_f64();
            let most = (spent / self.costs.park.max(self.costs.run)) as u64;
            quiet::User { id: *id, hits: account.kept.parks + account.kept.runs, most }
        };
        self.of.iter().map(user).collect()
    }
}
