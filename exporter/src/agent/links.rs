//! Links, and groups of them that live and die together: how they are attached to a file and detached from it. Knows nothing of
//! what they are attached for.

use std::{
    collections::HashSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tokio::sync::Notify;

use crate::{
    kernel::{AttachError, Kernel, Link, Probe, Scope},
    process::{FileId, Process},
    target::{Features, Inspection, PlannedProbe},
};

/// What a group of links is attached to: a file, and one process of it or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub(super) file: FileId,
    pub(super) pid: Option<u32>,
}

impl GroupKey {
    pub(super) fn scope(&self) -> Scope {
        self.pid.map_or(Scope::File, Scope::Process)
    }
}

/// Attached sites: which program, at which file offset.
pub(super) type Links = Vec<(Probe, u64, Link)>;

/// Links that live and die together.
pub(super) struct Group {
    pub(super) links: Links,
    /// Whether the links are in place; until then its users are not measured.
    pub(super) attached: bool,
    /// What the links are for: what any of its users asks for.
    pub(super) features: Features,
    /// Ids of the targets that use it.
    pub(super) users: HashSet<u32>,
    /// Tells this group from one before it for the same file.
    pub(super) generation: u64,
    /// The probes on goroutines that block, while they are attached.
    pub(super) blocking: Links,
    /// Whether a task sees to these.
    pub(super) driven: bool,
    /// Why they could not be attached.
    pub(super) blocking_error: Option<String>,
    /// Tells that task of new users.
    pub(super) joined: Arc<Notify>,
}

impl Group {
    /// One with its first user, and no links yet.
    pub(super) fn founded_by(id: u32) -> Self {
        static GENERATIONS: AtomicU64 = AtomicU64::new(0);
        Self {
            links: Links::new(),
            attached: false,
            features: Features::NONE,
            users: HashSet::from([id]),
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed),
            blocking: Links::new(),
            driven: false,
            blocking_error: None,
            joined: Arc::default(),
        }
    }

    /// Whether its users are measured.
    pub(super) fn is_attached(&self) -> bool {
        self.attached
    }

    /// Whether this very site is attached.
    pub(super) fn has(&self, planned: &PlannedProbe) -> bool {
        let links = self.links.iter().chain(&self.blocking);
        links.into_iter().any(|(probe, offset, _)| *probe == planned.probe && *offset == planned.file_offset)
    }

    /// Sites attached.
    pub(super) fn sites(&self) -> usize {
        self.links.len() + self.blocking.len()
    }

    /// All links.
    pub(super) fn into_links(self) -> Links {
        self.links.into_iter().chain(self.blocking).collect()
    }
}

/// Attaches the planned probes that are wanted, all or none.
///
/// # Errors
/// As the kernel says it, or that the file is not the one that was inspected.
pub(super) fn attach_all(
    kernel: &Kernel,
    inspection: &Inspection,
    process: &Process,
    scope: Scope,
    wanted: impl Fn(&PlannedProbe) -> bool,
) -> Result<Links, AttachError> {
    // Ends before starts: a start without its end would be in flight for ever.
    let mut planned: Vec<_> = inspection.probes.iter().filter(|it| !it.on_demand && wanted(it)).collect();
    planned.sort_by_key(|it| {
        matches!(it.probe, Probe::HttpStart | Probe::XnetStart | Probe::StwStart | Probe::StwStop | Probe::StwStopBare)
    });
    let Some(first) = planned.first().map(|it| it.probe) else { return Ok(Links::new()) };
    on_inspected(process, inspection.build_id.as_deref(), first, |exe| {
        let mut links = Links::new();
        for it in planned {
            match kernel.attach(it.probe, exe, &[it.file_offset], scope) {
                Ok(link) => links.push((it.probe, it.file_offset, link)),
                Err(error) => {
                    detach_elsewhere(links);
                    return Err(error);
                }
            }
        }
        Ok(links)
    })
}

/// Attaches to the file that was inspected and to no other: the offsets of one are the middle of instructions of another, for
/// every process of it. A file cannot be written while the process runs it, so that looking before and after is enough.
pub(super) fn on_inspected<T>(
    process: &Process,
    build_id: Option<&str>,
    probe: Probe,
    attach: impl FnOnce(&Path) -> Result<T, AttachError>,
) -> Result<T, AttachError> {
    let held = process.hold(build_id).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => AttachError::Gone { probe },
        _ => AttachError::Swapped(error),
    })?;
    let attached = attach(&held.path())?;
    held.still().map_err(AttachError::Swapped)?;
    Ok(attached)
}

/// Detaching blocks: it is done on a thread of its own.
pub(super) fn detach_elsewhere(links: Links) {
    if !links.is_empty() {
        // Where there can be no thread, the links are dropped here and now.
        let _ = on_a_small_thread(move || drop(links));
    }
}

/// A thread that needs next to no stack: there may be hundreds.
fn on_a_small_thread(act: impl FnOnce() + Send + 'static) -> std::io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("detach".into()).stack_size(64 * 1024).spawn(act)
}

/// Detaches many groups at once: the kernel waits for each `uprobe_multi` link alone, and the waits overlap. Those of perf events
/// do not: `perf_uprobe_destroy` (kernel/trace/trace_event_perf.c) waits with the `event_mutex` held.
pub(super) fn detach_in_parallel(groups: Vec<Group>) {
    // 1,000 links: 2.2 s with 32 threads, 0.4 s with 256.
    const THREADS: usize = 256;
    let mut shares: Vec<Vec<Link>> = (0..THREADS).map(|_| Vec::new()).collect();
    for (i, (_, _, link)) in groups.into_iter().flat_map(Group::into_links).enumerate() {
        shares[i % THREADS].push(link);
    }
    let threads: Vec<_> = shares
        .into_iter()
        .filter(|share| !share.is_empty())
        .map(|share| on_a_small_thread(move || drop(share)))
        .collect();
    for thread in threads.into_iter().flatten() {
        let _ = thread.join();
    }
}
