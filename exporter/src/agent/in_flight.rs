//! Room in the map of requests in flight: its entries are of goroutines, and those that serve nothing give way. Knows nothing of
//! what a request is counted as.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use exporter_ebpf::event;
use tracing::debug;

use super::{Agent, ledger::is_settled, turns::Who};

/// A goroutine that began its last request this long ago, and serves none, gives way when the map is half full.
const LONG: Duration = Duration::from_mins(1);
/// How much longer than it took it rests after room was made at once: a program that fills the map again and again with requests
/// truly in flight must not keep the agent busy.
const REST: u32 = 50;
/// It rests this long at least, and at most.
const RESTS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Of which entries room is made.
#[derive(Clone, Copy)]
enum Give {
    /// Those that have been idle for [`LONG`], if the map is half full.
    Old,
    /// The quarter of the map that has been idle longest.
    Quarter,
}

impl Agent {
    /// Makes room ahead of need, away from the event loop.
    pub(super) fn forget_idle(&self) {
        self.elsewhere(Who::gopulse(), None, |agent| agent.make_room(Give::Old));
    }

    /// Makes room now that the map has refused a request. The kernel side tells of no other until it is done.
    pub(super) fn make_room_at_once(&self) {
        let agent = self.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let worker = agent.clone();
            let _ = tokio::task::spawn_blocking(move || worker.make_room(Give::Quarter)).await;
            tokio::time::sleep((began.elapsed() * REST).clamp(RESTS.0, RESTS.1)).await;
            let _ = agent.inner.kernel.maps().pending.set(event::IN_FLIGHT_FULL, &0);
        });
    }

    /// Removes entries of goroutines that serve nothing. Should one start a request between the last look at its entry and the
    /// removal, the request is not counted, and is told as lost at its end.
    fn make_room(&self, give: Give) {
        let in_flight = &self.inner.kernel.maps().in_flight;
        // A settled request's entry stays until its goroutine is used again.
        let settled = self.ledger().settled();
        let is_idle = |key: &u64, open: u64, start_ns: u64| open == 0 || is_settled(&settled, *key, start_ns);
        let seen = in_flight.read(|(entries, idle): &mut (u64, Vec<(u64, u64)>), key, entry| {
            *entries += 1;
            if is_idle(key, entry.open, entry.start_ns) {
                idle.push((entry.start_ns, *key));
            }
        });
        let Ok((entries, idle)) = seen else { return };
        let (before, most) = match give {
            Give::Old if entries * 2 < in_flight.capacity() => return,
            Give::Old => (crate::clock::monotonic_ns().saturating_sub(LONG.as_nanos() as u64), usize::MAX),
            Give::Quarter => (u64::MAX, (in_flight.capacity() / 4) as usize),
        };
        let leave = longest_idle(idle, before, most);
        debug!(entries, removed = leave.len(), "room for requests in flight");
        let starts: HashMap<u64, u64> = leave.into_iter().map(|(start_ns, key)| (key, start_ns)).collect();
        in_flight.remove_where(starts.keys().copied(), |key, now| {
            now.start_ns == starts[key] && is_idle(key, now.open, now.start_ns)
        });
    }
}

/// The first `most` by start of their last request, of those that began it before a moment. Pairs of start and key.
fn longest_idle(mut idle: Vec<(u64, u64)>, before: u64, most: usize) -> Vec<(u64, u64)> {
    idle.retain(|(start_ns, _)| *start_ns < before);
    idle.sort_unstable();
    idle.truncate(most);
    idle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_been_idle_longest_gives_way() {
        let idle = vec![(30, 1), (10, 2), (40, 3), (20, 4)];
        assert_eq!(longest_idle(idle.clone(), u64::MAX, 2), [(10, 2), (20, 4)]);
        assert_eq!(longest_idle(idle.clone(), 40, usize::MAX), [(10, 2), (20, 4), (30, 1)]);
        assert_eq!(longest_idle(idle, 10, usize::MAX), []);
    }
}
