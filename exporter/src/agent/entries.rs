//! What the kernel's maps have of targets that are to be forgotten: read in full before any of it is removed, so that nothing of
//! theirs is left to the next owner of a target's id.

use std::{collections::HashSet, io};

use exporter_ebpf::{
    facts::Facts,
    http::{HttpState, PanicKey},
    key::{OfTarget as _, SeriesKey, SeriesState, TextKey, target_of},
    loss::LostKey,
    wait::{BlockedAtKey, WaitState, Window},
};

use crate::kernel::Maps;

pub(super) struct Entries<'t> {
    targets: &'t HashSet<u32>,
    in_flight: Vec<u64>,
    refused: Vec<u64>,
    panics: Vec<PanicKey>,
    hijacks: Vec<u64>,
    routed: Vec<u64>,
    series: Vec<SeriesKey>,
    texts: Vec<TextKey>,
    lost: Vec<LostKey>,
    threads: Vec<(u64, u32)>,
    parked: Vec<u64>,
    blocked_at: Vec<BlockedAtKey>,
}

impl<'t> Entries<'t> {
    /// # Errors
    /// One of the maps cannot be read.
    pub(super) fn of(maps: &Maps, targets: &'t HashSet<u32>) -> io::Result<Self> {
        let threads = maps.tasks.read(|threads: &mut Vec<(u64, u32)>, address, task| {
            if targets.contains(&task.target) {
                threads.push((*address, task.target));
            }
        })?;
        Ok(Self {
            targets,
            in_flight: maps.in_flight.keys(|key| targets.contains(&target_of(*key)))?,
            refused: maps.refused.keys(|key| targets.contains(&target_of(*key)))?,
            panics: maps.panics.keys(|key| targets.contains(&target_of(key.goroutine)))?,
            hijacks: maps.hijacks.keys(|key| targets.contains(&target_of(*key)))?,
            routed: maps.routed.keys(|key| targets.contains(&target_of(*key)))?,
            series: maps.series.keys(|key| targets.contains(&key.target()))?,
            texts: maps.texts.keys(|key| targets.contains(&key.target()))?,
            lost: maps.lost.keys(|key| targets.contains(&key.target))?,
            threads,
            parked: maps.parked.keys(|key| targets.contains(&target_of(*key)))?,
            blocked_at: maps.blocked_at.keys(|key| targets.contains(&key.target))?,
        })
    }

    pub(super) fn remove(self, maps: &Maps) {
        maps.in_flight.remove_all(&self.in_flight);
        maps.refused.remove_all(&self.refused);
        maps.panics.remove_all(&self.panics);
        maps.hijacks.remove_all(&self.hijacks);
        maps.routed.remove_all(&self.routed);
        maps.texts.remove_all(&self.texts);
        maps.forget_threads(&self.threads);
        maps.parked.remove_all(&self.parked);
        // While the threads were there, more series could come.
        let series = maps.series.keys(|key| self.targets.contains(&key.target()));
        maps.series.remove_all(&series.unwrap_or(self.series));
        maps.blocked_at.remove_all(&self.blocked_at);
        maps.lost.remove_all(&self.lost);
        maps.forget_told(self.targets);
        for id in self.targets {
            // The number comes again.
            let _ = maps.series_states.set(*id, &SeriesState::ZERO);
            let _ = maps.http_states.set(*id, &HttpState::default());
            let _ = maps.wait_states.set(*id, &WaitState::default());
            let _ = maps.windows.set(*id, &Window::CLOSED);
            let _ = maps.facts.set(*id, &Facts::NONE);
        }
    }
}
