//! The probes on goroutines that block: attached for as long, or as often, as the budget of the targets allows. One task for
//! each group of links; what it does at each turn is [`crate::budget::Sampler`]'s to say.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use exporter_ebpf::{
    key::{Family, OfTarget as _, SeriesKey},
    wait::Window,
};
use tokio::sync::Notify;

use super::{
    Agent,
    accounts::Accounts,
    blocked::{self, Raw},
    groups::GroupKey,
};
use crate::{budget::Sampler, kernel::Kernel};

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

mod attaching;
mod driver;

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
    /// Wakes it when the group has another user.
    joined: Arc<Notify>,
}

/// The tasks that drive groups, and how each is woken.
#[derive(Default)]
pub(super) struct Drivers(Mutex<HashMap<GroupKey, Arc<Notify>>>);

impl Drivers {
    fn table(&self) -> MutexGuard<'_, HashMap<GroupKey, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A group has another user.
    pub(super) fn wake(&self, key: &GroupKey) {
        if let Some(joined) = self.table().get(key) {
            joined.notify_one();
        }
    }

    fn begin(&self, key: GroupKey) -> Arc<Notify> {
        let joined = Arc::<Notify>::default();
        self.table().insert(key, Arc::clone(&joined));
        joined
    }

    fn end(&self, key: &GroupKey, joined: &Arc<Notify>) {
        let mut table = self.table();
        // The next group with this key may have a task already.
        if table.get(key).is_some_and(|it| Arc::ptr_eq(it, joined)) {
            table.remove(key);
        }
    }
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
    /// Lets a task drive the probes on blocking of a group of which a user asks for them, unless one does.
    pub(super) fn measure_blocking(&self, key: GroupKey) {
        let Some(generation) = self.state().drive_blocking(&key) else { return };
        let mut driver = Driver {
            agent: self.clone(),
            key,
            generation,
            sampler: Sampler::new(),
            accounts: Accounts::default(),
            given_up: false,
            profiled: false,
            covered_until: Instant::now(),
            joined: self.inner.drivers.begin(key),
        };
        tokio::spawn(async move {
            driver.accounts.costs = driver.agent.costs().await;
            driver.run().await;
            driver.agent.inner.drivers.end(&driver.key, &driver.joined);
        });
    }
}

impl Agent {
    /// Takes over what the kernel side has counted of these targets in a time that is over: a window, which stands for a period,
    /// or all the time there was. Whether the kernel's map could be read.
    async fn store(&self, users: &[(u32, u32)], period: Option<Duration>, open: Duration, until: Instant) -> bool {
        // Their ids stay theirs. A snapshot that has the targets as they were may read the map before this or after it: the probes are
        // off, and the kernel counts nothing more.
        let _under_way = self.under_way();
        let agent = self.clone();
        let ids = users.iter().map(|(id, _)| *id).collect();
        let counted = self.inner.blocked.ask(ids, move |ids| raw_of(&agent.inner.kernel, ids)).await;
        let Some(mut raw) = counted else { return false };
        let mut state = self.state();
        for (id, pid) in users {
            let Some(target) = state.targets.get_mut(id).filter(|target| target.process.id.pid == *pid) else {
                continue;
            };
            let raw = raw.remove(id).unwrap_or_default();
            match period {
                Some(period) => target.blocked.closed(raw, open, period, until),
                None => target.blocked.closed_for_good(raw, open, until),
            }
        }
        true
    }

    /// Tells the kernel side which parks of a target are measured; whether the process is still the target.
    pub(super) fn set_window(&self, id: u32, pid: u32, from_ns: u64, until_ns: u64) -> bool {
        let open = |window: Window| Window { from_ns, until_ns, ..window };
        self.change_window(id, pid, open)
    }

    /// Changes when a target's goroutines are measured, if the process is still the target.
    pub(super) fn change_window(&self, id: u32, pid: u32, to: impl FnOnce(Window) -> Window) -> bool {
        let maps = self.inner.kernel.maps();
        maps.targets.get(pid).is_some_and(|config| config.id == id) && maps.windows.change(id, to)
    }
}

/// What the kernel has counted of these targets' goroutines.
///
/// # Errors
/// The kernel's map cannot be read.
fn raw_of(kernel: &Kernel, ids: &HashSet<u32>) -> io::Result<HashMap<u32, Raw>> {
    let mut raw = kernel.maps().series.read(|all: &mut HashMap<u32, Raw>, key, value| {
        if key.family == Family::Blocking as u8 && ids.contains(&key.target()) {
            all.entry(key.target()).or_default().insert(blocked::number(key), *value);
        }
    })?;
    for id in ids {
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
