//! Groups whose programs are idle. One look a second at the counts of all of them wakes the tasks of those
//! that are idle no more; a timer for each task would cost a node with many idle pods more than all else that the agent does.
//! Knows hits, not what they cost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use exporter_ebpf::wait::WatchState;
use tokio::sync::Notify;

use super::{Agent, links::GroupKey};

/// Time between two looks: what a load that begins at once can spend unnoticed.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Those that rest.
#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<HashMap<GroupKey, Resting>>);

/// One process of a group.
#[derive(Debug)]
pub(super) struct User {
    /// Target id.
    pub(super) id: u32,
    /// Hits of its probes at the last look.
    pub(super) hits: u64,
    /// More of them between two looks end the group's rest.
    pub(super) most: u64,
}

#[derive(Debug)]
struct Resting {
    users: Vec<User>,
    wake: Arc<Notify>,
}

impl Quiet {
    /// A group's task rests until it is woken: by this, or by whoever else has a reason.
    pub(super) fn rest(&self, key: GroupKey, users: Vec<User>, wake: Arc<Notify>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Resting { users, wake });
    }

    /// It is awake.
    pub(super) fn woke(&self, key: GroupKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Wakes whose counts have grown.
    fn look(&self, state_of: impl Fn(u32) -> Option<WatchState>) {
        for resting in self.0.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            let mut busy = false;
            for user in &mut resting.users {
                let now = state_of(user.id).map_or(0, |kept| kept.parks + kept.runs);
                busy |= now.saturating_sub(user.hits) > user.most;
                user.hits = now;
            }
            if busy {
                resting.wake.notify_one();
            }
        }
    }
}

impl Agent {
    /// Wakes the tasks of groups that are idle no more.
    pub(super) fn wake_busy(&self) {
        let states = &self.inner.kernel.maps().watch_states;
        self.inner.quiet.look(|id| states.get(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{FileId, Inode};

    #[tokio::test]
    async fn a_group_rests_while_its_counts_hardly_grow() {
        let quiet = Quiet::default();
        let inode = Inode { device: 1, number: 2 };
        let key = GroupKey { file: FileId { inode, modified_ns: 3, changed_ns: 0, size: 4 }, pid: None };
        let wake = Arc::new(Notify::new());
        let user = |id, hits| User { id, hits, most: 100 };
        quiet.rest(key, vec![user(1, 1000), user(2, 0)], Arc::clone(&wake));
        let woken = |parks: u64| {
            quiet.look(|id| Some(WatchState { parks: if id == 1 { parks } else { 0 }, ..WatchState::default() }));
            let wake = Arc::clone(&wake);
            async move { tokio::time::timeout(Duration::from_millis(1), wake.notified()).await.is_ok() }
        };
        assert!(!woken(1100).await);
        assert!(!woken(1200).await, "the count at the last look is the one that matters");
        assert!(woken(1301).await);
        quiet.woke(key);
        assert!(!woken(1_000_000).await, "it rests no more");
    }
}
