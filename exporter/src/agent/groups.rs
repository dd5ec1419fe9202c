//! Groups of links: which targets share which links, what the links are for, and when they come off. Pure code: a link is
//! whatever the caller hands in, and it is handed back to be detached. Knows neither the life cycle of a target nor how
//! links are attached.

use std::collections::{HashMap, HashSet};

use super::lease::Lease;
use crate::{
    kernel::{Link, Probe},
    process::{Code, FileId, Process},
    target::{Features, PlannedProbe},
};

/// What a group of links is attached to: a file, and one process of it or all. All of them only where the file keeps its content
/// ([`crate::process::is_lasting`]): the kernel puts the probes on a file into every process that maps it, whatever the file
/// has become since they were attached. Those of one process are in no other, since they go by its address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GroupKey {
    pub(super) file: FileId,
    pub(super) pid: Option<u32>,
}

impl GroupKey {
    /// Of one process.
    pub(super) fn alone(process: &Process) -> Self {
        Self { file: process.file, pid: Some(process.id.pid) }
    }

    /// Of all processes of its executable.
    pub(super) fn shared(process: &Process) -> Self {
        Self { file: process.file, pid: None }
    }
}

/// An attached site: which program, at which file offset.
pub(super) type Site<L = Link> = (Probe, u64, L);
/// The sites of one group, or of a part of it.
pub(super) type Links<L = Link> = Vec<Site<L>>;

/// Links that are attached together and detached together.
pub(super) struct Group<L = Link> {
    pub(super) links: Links<L>,
    /// Whether all links that its users ask for are in place; while more are being attached it is not.
    attached: bool,
    /// What the links are for: what any of its users asks for.
    features: Features,
    /// The code that the links are in.
    code: Code,
    /// Ids of the targets that use it.
    pub(super) users: HashSet<u32>,
    /// Tells this group from an earlier one with the same key.
    pub(super) generation: u64,
    /// The probes on goroutines that block, while they are attached: they come off in time whatever becomes of their task.
    pub(super) blocking: Option<Lease<Site<L>>>,
    /// Whether a task drives the probes on goroutines that block.
    pub(super) driven: bool,
    /// Why the probes on goroutines that block could not be attached.
    pub(super) blocking_error: Option<String>,
}

impl<L> Group<L> {
    /// Whether its users are measured.
    pub(super) fn is_attached(&self) -> bool {
        self.attached
    }

    /// What the links are for.
    pub(super) fn features(&self) -> Features {
        self.features
    }

    /// Whether this very site is attached.
    pub(super) fn has(&self, planned: &PlannedProbe) -> bool {
        let is = |(probe, offset, _): &Site<L>| *probe == planned.probe && *offset == planned.file_offset;
        self.links.iter().any(is) || self.blocking.as_ref().is_some_and(|lease| lease.count(is) > 0)
    }

    /// The number of sites that are attached.
    pub(super) fn sites(&self) -> usize {
        self.links.len() + self.blocking.as_ref().map_or(0, |lease| lease.count(|_| true))
    }

    /// The sites that are attached: program, and offset in the file.
    pub(super) fn all_sites(&self) -> impl Iterator<Item = (Probe, u64)> {
        let leased = self.blocking.as_ref().map(|lease| lease.map(|(probe, offset, _)| (*probe, *offset)));
        let links = self.links.iter().map(|(probe, offset, _)| (*probe, *offset));
        links.chain(leased.unwrap_or_default())
    }

    /// All links, those of the lease included.
    pub(super) fn into_links(self) -> Links<L> {
        let blocking = self.blocking.and_then(|lease| lease.take());
        self.links.into_iter().chain(blocking.unwrap_or_default()).collect()
    }
}

/// Links that a group lacks, and that its caller has to attach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Missing {
    /// Of the group.
    pub(super) generation: u64,
    /// What the links are for once these are attached.
    pub(super) features: Features,
    /// What they are for now.
    pub(super) had: Features,
}

/// What a target finds that joins a group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Joined {
    /// All links that it asks for.
    Complete,
    /// Links that are being attached: [`Groups::attached`] tells what becomes of it.
    Pending,
    /// Not all links that it asks for.
    Missing(Missing),
}

/// All groups, by what they are attached to.
pub(super) struct Groups<L = Link> {
    of: HashMap<GroupKey, Group<L>>,
    generations: u64,
}

impl<L> Default for Groups<L> {
    fn default() -> Self {
        Self { of: HashMap::new(), generations: 0 }
    }
}

impl<L> Groups<L> {
    pub(super) fn get(&self, key: &GroupKey) -> Option<&Group<L>> {
        self.of.get(key)
    }

    pub(super) fn get_mut(&mut self, key: &GroupKey) -> Option<&mut Group<L>> {
        self.of.get_mut(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&GroupKey, &Group<L>)> {
        self.of.iter()
    }

    /// The group for a process with this code: that of its file, if the process may share one, and the group there is in the
    /// same code. Two files of one identity may differ in their code.
    pub(super) fn key_of(&self, process: &Process, may_share: bool, code: &Code) -> GroupKey {
        let shared = GroupKey::shared(process);
        let same_code = self.of.get(&shared).is_none_or(|group| group.code == *code);
        if may_share && same_code { shared } else { GroupKey::alone(process) }
    }

    /// Ids of the targets that use a group, in order.
    pub(super) fn users(&self, key: &GroupKey) -> Vec<u32> {
        let mut users: Vec<u32> = self.of.get(key).iter().flat_map(|group| &group.users).copied().collect();
        users.sort_unstable();
        users
    }

    /// A target uses the group from here on, which is founded if there is none.
    pub(super) fn join(&mut self, key: GroupKey, id: u32, features: Features, code: &Code) -> Joined {
        let Some(group) = self.of.get_mut(&key) else {
            let generation = self.generations;
            self.generations += 1;
            let group = Group {
                links: Links::new(),
                attached: false,
                features: Features::NONE,
                code: code.clone(),
                users: HashSet::from([id]),
                generation,
                blocking: None,
                driven: false,
                blocking_error: None,
            };
            self.of.insert(key, group);
            return Joined::Missing(Missing { generation, features, had: Features::NONE });
        };
        group.users.insert(id);
        if !group.attached {
            return Joined::Pending;
        }
        group.extend(features).map_or(Joined::Complete, Joined::Missing)
    }

    /// Whether links are being attached to this generation of a group.
    pub(super) fn is_pending(&self, key: &GroupKey, generation: u64) -> bool {
        self.of.get(key).is_some_and(|group| !group.attached && group.generation == generation)
    }

    /// Links were attached to a group, which now has what `features` ask for.
    ///
    /// # Errors
    /// The links, where the group is gone or another: then nobody uses them.
    pub(super) fn attached(
        &mut self,
        key: &GroupKey,
        generation: u64,
        features: Features,
        links: Links<L>,
    ) -> Result<&mut Group<L>, Links<L>> {
        match self.of.get_mut(key) {
            Some(group) if !group.attached && group.generation == generation => {
                group.links.extend(links);
                group.attached = true;
                group.features = features;
                Ok(group)
            }
            _ => Err(links),
        }
    }

    /// A target uses the group no longer. Where it was the last user, the links, which are to be detached.
    pub(super) fn leave(&mut self, key: &GroupKey, id: u32) -> Option<Links<L>> {
        let group = self.of.get_mut(key)?;
        group.users.remove(&id);
        if !group.users.is_empty() {
            return None;
        }
        self.of.remove(key).map(Group::into_links)
    }

    /// Attaching failed for good: the group is no more. Its users in order, and the links that it had.
    pub(super) fn dissolve(&mut self, key: &GroupKey) -> (Vec<u32>, Links<L>) {
        let users = self.users(key);
        (users, self.of.remove(key).map(Group::into_links).unwrap_or_default())
    }

    /// Every group, for the end of the process.
    pub(super) fn take_all(&mut self) -> Vec<Group<L>> {
        self.of.drain().map(|(_, group)| group).collect()
    }
}

impl<L> Group<L> {
    /// What has to be attached so that the group has what `features` ask for too; none if it has that.
    pub(super) fn extend(&mut self, features: Features) -> Option<Missing> {
        let all = self.features.union(features);
        if all == self.features {
            return None;
        }
        self.attached = false;
        Some(Missing { generation: self.generation, features: all, had: self.features })
    }
}

#[cfg(test)]
mod tests;
