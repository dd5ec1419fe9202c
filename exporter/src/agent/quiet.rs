//! Groups whose programs are idle. One look a second at the counts of all of them wakes the tasks of those
//! that are idle no more; a timer for each task would cost a node with many idle pods more than all else that the agent does.
//! The look renews what their probes are held by. Knows hits, not what they cost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use exporter_ebpf::wait::WaitState;
use tokio::sync::Notify;

use super::{
    Agent,
    blocking::GRACE,
    groups::{GroupKey, Site},
    lease::Lease,
};

/// Time between two looks: what a load that begins at once can spend unnoticed.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Those that rest.
#[derive(Default)]
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

struct Resting {
    users: Vec<User>,
    lease: Lease<Site>,
    wake: Arc<Notify>,
}

impl Quiet {
    /// A group's task rests until it is woken: by this, or by whoever else has a reason.
    pub(super) fn rest(&self, key: GroupKey, users: Vec<User>, lease: Lease<Site>, wake: Arc<Notify>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Resting { users, lease, wake });
    }

    /// It is awake.
    pub(super) fn woke(&self, key: GroupKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Wakes whose counts have grown, and whose probes have come off; the others' are held on until `until`.
    fn look(&self, until: Instant, state_of: impl Fn(u32) -> Option<WaitState>) {
        for resting in self.0.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            let mut busy = !resting.lease.renew(until);
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
        let states = &self.inner.kernel.maps().wait_states;
        self.inner.quiet.look(Instant::now() + LOOK + GRACE, |id| states.get(id));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::lease::Leases, *};
    use crate::process::{FileId, Inode};

    #[tokio::test]
    async fn a_group_rests_while_its_counts_hardly_grow() {
        let quiet = Quiet::default();
        let inode = Inode { device: 1, number: 2 };
        let key = GroupKey { file: FileId { inode, modified_ns: 3, changed_ns: 0, size: 4 }, pid: None };
        let wake = Arc::new(Notify::new());
        let user = |id, hits| User { id, hits, most: 100 };
        let leases = Leases::new();
        let until = Instant::now() + Duration::from_hours(1);
        let lease = leases.grant(until, drop);
        quiet.rest(key, vec![user(1, 1000), user(2, 0)], lease.clone(), Arc::clone(&wake));
        let woken = |parks: u64| {
            quiet.look(until, |id| Some(WaitState { parks: if id == 1 { parks } else { 0 }, ..WaitState::default() }));
            let wake = Arc::clone(&wake);
            async move { tokio::time::timeout(Duration::from_millis(1), wake.notified()).await.is_ok() }
        };
        assert!(!woken(1100).await);
        assert!(!woken(1200).await, "the count at the last look is the one that matters");
        assert!(woken(1301).await);
        assert!(!woken(1302).await);
        lease.take();
        assert!(woken(1302).await, "its probes are no more");
        quiet.woke(key);
        assert!(!woken(1_000_000).await, "it rests no more");
    }
}
