//! Targets that share links: whether they may go on to, and who leaves a group.

use super::{Effect, Effects, Log, Registry, Stage, Target, attaching::detach};
use crate::{
    agent::groups::GroupKey,
    target::{Feature, Features, PlannedProbe},
};

impl<L> Registry<L> {
    /// On overlayfs one identity may stand for two files: where a container's layers are file systems of their own, mounted for
    /// each container from one image, they agree in all that `stat` tells. So it is looked at whether the probes that a target
    /// shares are in its memory.
    pub(super) fn verification(&self, id: u32) -> Option<Effect<L>> {
        let target = self.targets.get(&id).filter(|it| matches!(it.stage, Stage::Measured))?;
        let group = self.groups.get(&target.group)?;
        if target.process.id.inode.device != 0 || target.group.pid.is_some() || group.users.len() < 2 {
            return None;
        }
        let asked_for = |it: &&PlannedProbe| !it.on_demand && target.features.has(it.feature());
        let site = target.inspection.as_ref()?.probes.iter().find(asked_for)?;
        Some(Effect::Verify { id, process: Box::new(target.process.clone()), file_offset: site.file_offset })
    }

    /// A target gets an inspection and probes of its own.
    pub(in crate::agent) fn regroup(&mut self, id: u32) -> Effects<L> {
        let has_probes = |it: &&mut Target| matches!(it.stage, Stage::Measured | Stage::Preparing);
        let Some(target) = self.targets.get_mut(&id).filter(has_probes) else { return Vec::new() };
        let before = std::mem::replace(&mut target.group, GroupKey::alone(&target.process));
        target.others = false;
        let log = Log::ByItself(target.pid());
        // What is known of its file does not hold for it.
        let inspect = target.inspect(None);
        let mut effects = vec![Effect::Log(log)];
        effects.extend(self.release(before, id));
        effects.push(inspect);
        effects
    }

    /// A target dropped pages of its code and the probes in them; whether they could be written there again.
    pub(in crate::agent) fn code_replaced(&mut self, id: u32, back: bool) -> Effects<L> {
        let Some(target) = self.targets.get_mut(&id) else { return Vec::new() };
        target.code.replaced += 1;
        let (pid, key) = (target.pid(), target.group);
        let log = Log::CodeReplaced { pid, executable: target.executable(), back };
        let mut effects = vec![Effect::Log(log), Effect::LoseInFlight(id)];
        if !back {
            target.stage = Stage::Unsupported(
                "it has replaced its code in memory: what it runs is not its file's, where the kernel puts probes"
                    .into(),
            );
            effects.push(Effect::Unconfigure { pid, id });
            effects.extend(self.release(key, id));
            effects.push(Effect::Look(pid));
        }
        effects
    }

    /// A target uses a group no longer; the last user detaches the links.
    pub(super) fn release(&mut self, key: GroupKey, id: u32) -> Option<Effect<L>> {
        self.groups.leave(&key, id).and_then(|links| detach(key, links))
    }

    /// Whether a task has to drive the probes on blocking of a group, and of which generation. It is told so once.
    pub(in crate::agent) fn drive_blocking(&mut self, key: &GroupKey) -> Option<u64> {
        let group = self.groups.get_mut(key)?;
        let asks = |id: &u32| {
            let blocking = Features::NONE.with(Feature::Blocking);
            self.targets.get(id).is_some_and(|target| {
                matches!(target.stage, Stage::Measured)
                    && target.features.has(Feature::Blocking)
                    && target.inspection.as_ref().is_none_or(|it| it.measures_something(blocking))
            })
        };
        if group.driven || !group.is_attached() || !group.users.iter().any(asks) {
            return None;
        }
        group.driven = true;
        Some(group.generation)
    }
}
