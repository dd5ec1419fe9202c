//! How links are attached to a file and detached from it. Knows nothing of what they are attached for, nor who shares them.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use super::{
    Agent,
    groups::{Group, GroupKey, Links, Site},
    patience,
};
use crate::{
    kernel::{AttachError, Kernel, Link, Probe, Scope},
    process::Process,
    target::{Inspection, PlannedProbe},
    threads::Threads,
};

/// Which processes the links of a group fire for.
pub(super) fn scope(key: &GroupKey) -> Scope {
    key.pid.map_or(Scope::File, Scope::Process)
}

/// Attaches the planned probes that are wanted, all or none.
///
/// # Errors
/// As [`attach_each`].
pub(super) fn attach_all(
    kernel: &Kernel,
    inspection: &Inspection,
    reached: &Reached,
    key: GroupKey,
    wanted: impl Fn(&PlannedProbe) -> bool,
) -> Result<Links, AttachError> {
    let mut links = Links::new();
    let keep = |site| {
        links.push(site);
        Ok(())
    };
    match attach_each(kernel, inspection, reached, key, wanted, keep) {
        Ok(()) => Ok(links),
        Err(error) => {
            detach_elsewhere(key, links);
            Err(error)
        }
    }
}

/// Attaches the planned probes that are wanted, one after another: each is `keep`'s from the moment when it is attached, also
/// where another then fails.
///
/// # Errors
/// As the kernel or `keep` says it, or that the file is not the one that was inspected.
pub(super) fn attach_each(
    kernel: &Kernel,
    inspection: &Inspection,
    reached: &Reached,
    key: GroupKey,
    wanted: impl Fn(&PlannedProbe) -> bool,
    mut keep: impl FnMut(Site) -> Result<(), AttachError>,
) -> Result<(), AttachError> {
    let mut planned: Vec<_> = inspection.probes.iter().filter(|it| !it.on_demand && wanted(it)).collect();
    planned.sort_by_key(|it| it.probe.role());
    if planned.is_empty() {
        return Ok(());
    }
    on_inspected(reached, inspection, &planned, |exe| {
        for it in &planned {
            let link = kernel.attach(it.probe, exe, &[it.file_offset], scope(&key))?;
            keep((it.probe, it.file_offset, link))?;
        }
        Ok(())
    })
}

/// Attaches to the code that was inspected and to no other: the offsets of one are the middle of instructions of another. The
/// bytes at every site are compared before and after, through one open file: while the process runs it cannot be written, and
/// once it does not, links of that process alone are in no other. So is what the processes have of that code in their memory.
pub(super) fn on_inspected<T>(
    reached: &Reached,
    inspection: &Inspection,
    sites: &[&PlannedProbe],
    attach: impl FnOnce(&Path) -> Result<T, AttachError>,
) -> Result<T, AttachError> {
    let process = &reached.process;
    let probe = sites.first().map_or(Probe::Nothing, |it| it.probe);
    let unsure = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => AttachError::Gone { probe },
        ErrorKind::InvalidData => AttachError::Swapped(error),
        _ => AttachError::Refused { probe, reason: format!("its code cannot be compared: {error}") },
    };
    let held = process.hold(&inspection.code).map_err(unsure)?;
    reached.others_run(inspection, sites)?;
    let runs = || {
        let changes = inspection.changes_in(process, |it| is_one_of(sites, it)).map_err(unsure)?;
        changes.into_iter().next().map_or(Ok(()), |change| Err(AttachError::Patched(change.reason)))
    };
    runs()?;
    let attached = attach(&held.path()).map_err(|error| match error {
        // The kernel says "no such process or file" of other things too.
        AttachError::Gone { .. } if process.is_there() => {
            AttachError::Refused { probe, reason: "the kernel finds no such process or file, but it is there".into() }
        }
        error => error,
    })?;
    held.still().map_err(unsure)?;
    runs()?;
    Ok(attached)
}

fn is_one_of(sites: &[&PlannedProbe], it: &PlannedProbe) -> bool {
    sites.iter().any(|site| site.probe == it.probe && site.file_offset == it.file_offset)
}

/// Processes that links get into: that through which they are attached, and where they are on its file all that run it.
pub(super) struct Reached {
    pub(super) process: Process,
    pub(super) others: Vec<Process>,
}

/// How long the memory of another process of the file is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

impl Reached {
    /// One process.
    pub(super) fn alone(process: Process) -> Self {
        Self { process, others: Vec::new() }
    }

    /// Whether the others run what was inspected. Those that are gone, or run another file now, are no matter.
    fn others_run(&self, inspection: &Inspection, sites: &[&PlannedProbe]) -> Result<(), AttachError> {
        if self.others.is_empty() {
            return Ok(());
        }
        let (tell, told) = mpsc::channel();
        let inspection = Arc::new(inspection.of_sites(|it| is_one_of(sites, it)));
        let left = patience::each(self.others.clone(), PATIENCE, Some(Instant::now() + PATIENCE * 4), move || {
            let (tell, inspection) = (tell.clone(), Arc::clone(&inspection));
            move |process: Process| {
                let changed = match inspection.changes_in(&process, |_| true) {
                    Ok(changes) => changes.into_iter().next().map(|it| it.reason),
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => None,
                    Err(error) => Some(format!("its code cannot be compared: {error}")),
                };
                let _ = tell.send(changed.map(|reason| format!("process {} of its file: {reason}", process.id.pid)));
            }
        });
        let told: Vec<Option<String>> = told.try_iter().collect();
        let silent = "the memory of another process of its file does not answer";
        match told.iter().flatten().next() {
            Some(reason) => Err(AttachError::Patched(reason.clone())),
            None if left > 0 || told.len() < self.others.len() => Err(AttachError::Patched(silent.into())),
            None => Ok(()),
        }
    }
}

impl Agent {
    /// Whom links of a group get into that are attached through this process: of a file all processes that are known to run it,
    /// whether they are measured or not.
    pub(super) fn reached(&self, key: GroupKey, process: Process) -> Reached {
        if key.pid.is_some() {
            return Reached::alone(process);
        }
        let ids = self.state().running(key.file.inode, process.id);
        let others =
            ids.into_iter().filter_map(|id| Process::find(id.pid).ok().filter(|found| found.id == id)).collect();
        Reached { process, others }
    }
}

/// How many groups of links are being detached, by what they are attached to.
static LEAVING: Mutex<BTreeMap<GroupKey, usize>> = Mutex::new(BTreeMap::new());
static LEFT: Condvar = Condvar::new();

/// How long [`wait_for_leaving`] waits: detaching many sites by perf events takes seconds, and what takes longer may never end.
const LEAVES_WITHIN: Duration = Duration::from_secs(30);

/// Links that are not a group's any more, or not yet; its fields are dropped in this order.
pub(super) struct Leaving {
    _links: Links,
    _entry: Entry,
}

impl Leaving {
    /// While one process is being attached to: where it becomes another program meanwhile, the links are on their way out before
    /// they are there. Of those on a file there is nothing to be told: its processes share what comes of them.
    pub(super) fn underway(key: GroupKey) -> Option<Self> {
        key.pid.map(|_| Self { _links: Links::new(), _entry: Entry::new(key) })
    }
}

struct Entry(GroupKey);

impl Entry {
    fn new(key: GroupKey) -> Self {
        *leaving().entry(key).or_default() += 1;
        Self(key)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut leaving = leaving();
        if let Some(count) = leaving.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                leaving.remove(&self.0);
            }
        }
        LEFT.notify_all();
    }
}

fn leaving() -> MutexGuard<'static, BTreeMap<GroupKey, usize>> {
    LEAVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Detaching blocks: it is done on a thread of its own. Until that is over, [`wait_for_leaving`] waits for it.
pub(super) fn detach_elsewhere(key: GroupKey, links: Links) {
    if !links.is_empty() {
        let leaving = Leaving { _links: links, _entry: Entry::new(key) };
        // Where there can be no thread, the links are dropped here and now.
        let _ = on_a_small_thread(move || drop(leaving));
    }
}

/// Waits until what was attached to the same processes before is detached: a process that executes its own file once more, or
/// that starts right after the last one of a file, would be counted by both. Blocks for half a minute at most; whether it is
/// detached.
pub(super) fn wait_for_leaving(process: &Process) -> bool {
    leaves_within(process, LEAVES_WITHIN)
}

fn leaves_within(process: &Process, patience: Duration) -> bool {
    let same = |key: &GroupKey| key.file.inode == process.id.inode && key.pid.is_none_or(|pid| pid == process.id.pid);
    let waited = LEFT.wait_timeout_while(leaving(), patience, |leaving| leaving.keys().any(same));
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

/// On a thread that needs next to no stack: there may be hundreds.
pub(super) fn on_a_small_thread(act: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    static THREADS: Threads = Threads::new("detach", 64 * 1024);
    THREADS.run(act)
}

/// Detaches many groups at once: the kernel waits for each `uprobe_multi` link alone, and the waits overlap. Those of perf events
/// do not: `perf_uprobe_destroy` (kernel/trace/trace_event_perf.c) waits with the `event_mutex` held.
/// What the kernel does not let go of in this time is left to the end of the process.
pub(super) fn detach_in_parallel(groups: Vec<Group>, patience: Duration) {
    // 1,000 links: 2.2 s with 32 threads, 0.4 s with 256.
    const THREADS: usize = 256;
    let mut shares: Vec<Vec<Link>> = (0..THREADS).map(|_| Vec::new()).collect();
    for (i, (_, _, link)) in groups.into_iter().flat_map(Group::into_links).enumerate() {
        shares[i % THREADS].push(link);
    }
    // Each thread has one end of it until it is done, and nothing is ever sent.
    let (underway, over) = mpsc::channel::<()>();
    for share in shares.into_iter().filter(|share| !share.is_empty()) {
        let underway = underway.clone();
        let _ = on_a_small_thread(move || {
            drop(share);
            drop(underway);
        });
    }
    drop(underway);
    let _ = over.recv_timeout(patience);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_leaves_is_waited_for_no_longer_than_that() {
        let me = Process::find(std::process::id()).unwrap();
        let mut other = me.clone();
        other.id.pid += 1;
        let underway = Leaving::underway(GroupKey::alone(&me));
        assert!(!leaves_within(&me, Duration::from_millis(10)));
        assert!(leaves_within(&other, Duration::from_millis(10)), "it is another process of the file");
        drop(underway);
        assert!(leaves_within(&me, Duration::from_millis(10)));
        assert!(Leaving::underway(GroupKey::shared(&me)).is_none());
    }
}
