//! Who may keep the kernel busy, and how many at one time: reading an executable and attaching to it wait for its file system and
//! for the process's memory, which may never answer. What takes too long gives its turn to others and is counted against its owner,
//! who soon gets no more. Knows nothing of what is done in a turn.

mod lane;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::oneshot::{self, Receiver, Sender},
    time::timeout,
};

use self::lane::Lane;
use super::registry::Target;
use crate::{
    allowance::cpu_time,
    process::{Process, owner},
    threads::Threads,
};

/// Executables read, and probes attached, at one time: a thread for each of 250 targets that come at once would be done no
/// sooner, and cost memory.
const TURNS: usize = 32;
/// How many of them one owner may have.
const OF_AN_OWNER: usize = 24;
/// How long one may take before it is stuck: others get its turn, while its thread waits on.
const PATIENCE: Duration = Duration::from_secs(5);
/// Stuck ones of an owner and a device, with which it gets no more for that device until one comes back.
const STUCK_OF_A_DEVICE: usize = 4;
/// Stuck ones of an owner, with which it gets no more but for real devices on which nothing of it is stuck: file systems that are
/// on none are an owner's own to make.
const STUCK_OF_AN_OWNER: usize = 8;
/// Owners from which on those are forgotten that have all of their time again.
const LANES: usize = 64;
/// With what a thread may need to read an executable.
static THREADS: Threads = Threads::new("turn", 2 << 20);

/// Whose turn it is: the pod of a process or what else its cgroup says of its kind, and the device that its executable is on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Who {
    owner: Arc<str>,
    device: u64,
}

impl Who {
    pub(super) fn of(process: &Process) -> Self {
        Self { owner: owner(process.id.pid).into(), device: process.device }
    }

    /// Whose target it is, without a look at the process.
    pub(super) fn of_target(target: &Target) -> Self {
        Self { owner: Arc::clone(&target.owner), device: target.process.device }
    }

    /// gopulse itself, whose work waits for nobody.
    pub(super) fn gopulse() -> Self {
        Self { owner: "".into(), device: 0 }
    }

    /// Whether its device is one that an owner cannot make: major number 0 is for those that have no device.
    fn is_on_a_real_device(&self) -> bool {
        nix::sys::stat::major(self.device) != 0
    }
}

/// All turns. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    number: u64,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    held: HashMap<Who, usize>,
    stuck: HashMap<Who, usize>,
    /// Those of a target that are stuck or wait, for people.
    of_target: HashMap<u32, Asked>,
    /// By owner, what reads for it have cost.
    lanes: HashMap<Arc<str>, Arc<Lane>>,
}

struct Waiting {
    who: Who,
    go: Sender<()>,
}

#[derive(Clone, Copy)]
struct Asked {
    number: u64,
    since: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its owner has spent what there is for reading.
    Saving,
    /// Others have all turns.
    Waiting,
    Begun,
}

impl Table {
    /// Whether one more of this owner may begin now.
    fn admits(&self, who: &Who) -> bool {
        let of_owner = |table: &HashMap<Who, usize>| -> usize {
            table.iter().filter(|(it, _)| it.owner == who.owner).map(|(_, count)| count).sum()
        };
        let here = self.stuck.get(who).copied().unwrap_or(0);
        self.held.values().sum::<usize>() < TURNS
            && of_owner(&self.held) < OF_AN_OWNER
            && here < STUCK_OF_A_DEVICE
            && (of_owner(&self.stuck) < STUCK_OF_AN_OWNER || (here == 0 && who.is_on_a_real_device()))
    }

    /// Lets those begin that may, the first that came first.
    fn let_in(&mut self) {
        loop {
            // Owners are few: each is asked once, whatever their number of jobs.
            let mut refused: Vec<&Who> = Vec::new();
            let next = self.waiting.iter().find_map(|(number, it)| {
                if refused.contains(&&it.who) {
                    return None;
                }
                let admits = self.admits(&it.who);
                if !admits {
                    refused.push(&it.who);
                }
                admits.then_some(*number)
            });
            let Some(waiting) = next.and_then(|number| self.waiting.remove(&number)) else { return };
            // Nobody waits for it any more where this fails.
            if waiting.go.send(()).is_ok() {
                *self.held.entry(waiting.who).or_default() += 1;
            }
        }
    }

    /// What is told of a target.
    fn told(&self, target: u32, now: Instant) -> Option<String> {
        let asked = self.of_target.get(&target)?;
        let took = now.saturating_duration_since(asked.since);
        let seconds = took.as_secs();
        (took >= PATIENCE).then(|| match asked.stage {
            Stage::Begun => format!(
                "waiting for {seconds} s for its executable's file system or for its memory, which do not answer: others go on without it"
            ),
            Stage::Waiting => format!(
                "waiting for {seconds} s for its turn: others of its pod or cgroup wait for file systems or memory that do not answer"
            ),
            Stage::Saving => format!(
                "waiting for {seconds} s to be read: its pod or cgroup has many new executables, which are read one after another"
            ),
        })
    }

    /// Where reads of an owner wait for each other.
    fn lane(&mut self, owner: &Arc<str>) -> Arc<Lane> {
        if self.lanes.len() >= LANES && !self.lanes.contains_key(owner) {
            let now = Instant::now();
            self.lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || !lane.spent().is_whole(now));
        }
        Arc::clone(self.lanes.entry(Arc::clone(owner)).or_default())
    }
}

fn take_one(table: &mut HashMap<Who, usize>, who: &Who) {
    if let Some(count) = table.get_mut(who) {
        *count -= 1;
        if *count == 0 {
            table.remove(who);
        }
    }
}

impl Turns {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, who: &Who, target: Option<u32>) -> (u64, Receiver<()>) {
        let (go, gone) = oneshot::channel();
        let mut table = self.table();
        table.number += 1;
        let number = table.number;
        table.waiting.insert(number, Waiting { who: who.clone(), go });
        if let Some(target) = target {
            table.of_target.insert(target, Asked { number, since: Instant::now(), stage: Stage::Waiting });
        }
        table.let_in();
        (number, gone)
    }

    /// Does work on a thread of its own once it is this owner's turn. None where it broke down, or there can be no thread.
    pub(super) async fn take<T: Send + 'static>(
        &self,
        who: Who,
        target: Option<u32>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (number, turn) = self.ask(&who, target);
        turn.await.ok()?;
        let mut held = Held { turns: self.clone(), who, target, number, stuck: false };
        held.begun();
        let (done, mut told) = oneshot::channel();
        let runtime = Handle::current();
        let act = move || {
            let _runtime = runtime.enter();
            let _ = done.send(work());
        };
        THREADS.run(act).ok()?;
        if let Ok(done) = timeout(PATIENCE, &mut told).await {
            return done.ok();
        }
        held.is_stuck();
        told.await.ok()
    }

    /// The same of work that reads an executable of which nothing is known: an owner decides how many those are, and how large,
    /// and not what part of a core they take.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        who: Who,
        target: u32,
        is_known: impl Fn() -> bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let lane = {
            let mut table = self.table();
            table.of_target.insert(target, Asked { number: 0, since: Instant::now(), stage: Stage::Saving });
            table.lane(&who.owner)
        };
        lane.enter(is_known).await;
        self.take(who, Some(target), move || {
            let before = cpu_time();
            let done = work();
            lane.leave(cpu_time().saturating_sub(before));
            done
        })
        .await
    }

    /// Why nothing has come of a target yet, where that takes long.
    pub(super) fn told(&self, target: u32) -> Option<String> {
        self.table().told(target, Instant::now())
    }
}

/// A turn, until it is dropped.
struct Held {
    turns: Turns,
    who: Who,
    target: Option<u32>,
    number: u64,
    stuck: bool,
}

impl Held {
    fn begun(&self) {
        let mut table = self.turns.table();
        let asked = self.target.and_then(|target| table.of_target.get_mut(&target));
        if let Some(asked) = asked.filter(|asked| asked.number == self.number) {
            *asked = Asked { since: Instant::now(), stage: Stage::Begun, ..*asked };
        }
    }

    fn is_stuck(&mut self) {
        self.stuck = true;
        let mut table = self.turns.table();
        take_one(&mut table.held, &self.who);
        *table.stuck.entry(self.who.clone()).or_default() += 1;
        table.let_in();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.turns.table();
        let table = &mut *table;
        take_one(if self.stuck { &mut table.stuck } else { &mut table.held }, &self.who);
        if let Some(target) = self.target
            && table.of_target.get(&target).is_some_and(|asked| asked.number == self.number)
        {
            table.of_target.remove(&target);
        }
        table.let_in();
    }
}

#[cfg(test)]
mod tests;
