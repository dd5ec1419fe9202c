//! Targets with the same labels: which of them speaks for the others.

use std::collections::HashMap;

use super::{Target, Targets};
use crate::target::Labels;

impl Targets {
    /// For each target the one that speaks for it: of those with the same labels the oldest that lives. A container may hold
    /// several processes, its own and what is run in it for a moment, and the one before a restart lingers; its series must be
    /// there once.
    pub(in crate::agent) fn leaders(&self) -> HashMap<u32, u32> {
        let mut leader: HashMap<&Labels, &Target> = HashMap::new();
        for target in self.values() {
            let best = leader.entry(&target.labels).or_insert(target);
            let better = match (target.stage.is_live(), best.stage.is_live()) {
                (true, true) => target.since < best.since,
                (false, false) => target.since > best.since,
                (lives, _) => lives,
            };
            if better {
                *best = target;
            }
        }
        self.values().map(|target| (target.id, leader[&target.labels].id)).collect()
    }
}
