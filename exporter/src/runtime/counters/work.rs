//! Figures of what the runtime does: collections, CPU time, the scheduler.

use super::Look;
use crate::runtime::{
    figures::{Figure, GcSummary, Reading},
    heap::Pacer,
    memory::u64_at,
    plan::{Item, PAUSES},
    threads::{Processors, Threads},
};

impl Look<'_> {
    pub(super) fn gc_figures(&self, out: &mut Reading) {
        let mut set =
            |figure: Figure, value: Option<u64>| out.figures.set_some(figure, value.map(|value| value as f64));
        let cycles = self.half(Item::Numgc).map(u64::from);
        let forced = self.half(Item::Numforcedgc).map(u64::from);
        set(Figure::GcCyclesTotal, cycles);
        set(Figure::GcCyclesForced, forced);
        set(Figure::GcCyclesAutomatic, cycles.zip(forced).map(|(all, forced)| all.wrapping_sub(forced)));
        // A negative percentage is off, and client_golang shows it as the number that its bits are without a sign.
        set(Figure::GcGogc, self.half(Item::GcPercent).map(|percent| i64::from(percent as i32) as u64));
        set(Figure::GcGomemlimit, self.word(Item::MemoryLimit));
        set(Figure::GcHeapLive, self.word(Item::HeapMarked));
        let plus = |one: Option<u64>, other: Option<u64>| Some(one?.wrapping_add(other?));
        let scans = [Item::GlobalsScan, Item::HeapScan, Item::StackScan].map(|item| self.word(item));
        set(Figure::GcScanGlobals, scans[0]);
        set(Figure::GcScanHeap, scans[1]);
        set(Figure::GcScanStack, scans[2]);
        set(Figure::GcScanTotal, scans.into_iter().reduce(plus).flatten());
        set(Figure::GcLimiterLastEnabled, self.half(Item::LimiterCycle).map(u64::from));
        set(Figure::GcStackStartingSize, self.half(Item::StartingStackSize).map(u64::from));
        set(Figure::GcFinalizersQueued, self.word(Item::Finqueued));
        set(Figure::GcFinalizersExecuted, self.word(Item::Finexecuted));
        let goal = self.word(Item::HeapGoal).or_else(|| self.pacer().map(|pacer| pacer.goal(self.plan.minor)));
        set(Figure::GcHeapGoal, goal);
        set(Figure::MemstatsNextGcBytes, goal);
        if let (Some(ended), Some(cycles)) = (self.word(Item::LastGcUnix), cycles) {
            // debug.ReadGCStats makes a time of it, which is 1970 before the first collection.
            out.figures.set(Figure::MemstatsLastGcTimeSeconds, ended as f64 / 1e9);
            out.gc = self.gc_summary(cycles);
        }
    }

    pub(super) fn pacer(&self) -> Option<Pacer> {
        Some(Pacer {
            gc_percent_goal: self.word(Item::GcPercentHeapGoal)?,
            sweep_dist_min_trigger: self.word(Item::SweepDistMinTrigger)?,
            triggered: self.word(Item::Triggered)?,
            heap_marked: self.word(Item::HeapMarked)?,
            heap_free: self.word(Item::HeapFree)?,
            total_alloc: self.word(Item::TotalAlloc)?,
            total_free: self.word(Item::TotalFree)?,
            mapped_ready: self.word(Item::MappedReady)?,
            memory_limit: self.word(Item::MemoryLimit)?,
        })
    }

    /// `debug.ReadGCStats` with five quantiles (runtime/debug/garbage.go).
    pub(super) fn gc_summary(&self, cycles: u64) -> Option<GcSummary> {
        let ring = self.slice(Item::PauseNs)?;
        let kept = cycles.min(PAUSES as u64) as usize;
        let mut pauses: Vec<u64> = (0..kept).map(|at| u64_at(ring, at * 8)).collect();
        pauses.sort_unstable();
        let quantile = |i: usize| match kept {
            0 => 0.0,
            _ => pauses[(kept * i / 4).min(kept - 1)] as f64 / 1e9,
        };
        Some(GcSummary {
            quantiles: std::array::from_fn(quantile),
            sum: self.word(Item::PauseTotalNs)? as f64 / 1e9,
            count: cycles,
        })
    }

    pub(super) fn cpu_figures(&self, out: &mut Reading) {
        let Some(bytes) = self.slice(Item::CpuStats) else { return };
        // In the order of `runtime.cpuStats` (runtime/mstats.go).
        let order = [
            Figure::CpuClassesGcMarkAssist,
            Figure::CpuClassesGcMarkDedicated,
            Figure::CpuClassesGcMarkIdle,
            Figure::CpuClassesGcPause,
            Figure::CpuClassesGcTotal,
            Figure::CpuClassesScavengeAssist,
            Figure::CpuClassesScavengeBackground,
            Figure::CpuClassesScavengeTotal,
            Figure::CpuClassesIdle,
            Figure::CpuClassesUser,
            Figure::CpuClassesTotal,
        ];
        for (i, figure) in order.into_iter().enumerate() {
            out.figures.set(figure, u64_at(bytes, i * 8) as i64 as f64 / 1e9);
        }
    }

    pub(super) fn scheduler_figures(
        &self,
        processors: Option<Processors>,
        threads: Option<Threads>,
        out: &mut Reading,
    ) {
        let mut set = |figure: Figure, value: Option<f64>| out.figures.set_some(figure, value);
        let number = |item: Item| self.half(item).map(|value| i64::from(value as i32));
        set(Figure::SchedGomaxprocs, number(Item::Gomaxprocs).map(|value| value as f64));
        let all = self.word(Item::Allglen).map(|len| len as i64);
        let shared_free = number(Item::GFree).or_else(|| Some(number(Item::GFreeStack)? + number(Item::GFreeNoStack)?));
        // gcount: all that change while they are read, so the result may be off by a few, as the runtime's own may.
        let with_system = all
            .zip(shared_free)
            .zip(processors)
            .map(|((all, shared), processors)| (all - shared - processors.free as i64).max(1));
        let goroutines = with_system.zip(number(Item::Ngsys)).map(|(all, system)| (all - system).max(1) as f64);
        set(Figure::Goroutines, goroutines);
        let total = if self.word(Item::SchedCreated).is_some() { with_system.map(|it| it as f64) } else { goroutines };
        set(Figure::SchedGoroutines, total);
        if let Some(threads) = threads {
            set(Figure::Threads, Some(threads.count as f64));
            let calls = self.word(Item::Ncgocall).map(|past| past.wrapping_add(threads.cgo_calls) as f64);
            set(Figure::CgoGoToCCalls, calls);
        }
        let waits = [self.word(Item::MutexWait), Some(self.word(Item::RuntimeLockWait).unwrap_or(0))];
        if let [Some(mutexes), Some(locks)] = waits {
            let threads =
                if self.plan.offsets.m_lock_wait.is_some() { threads.map(|it| it.lock_wait_ns) } else { Some(0) };
            set(
                Figure::SyncMutexWaitTotal,
                threads.map(|threads| mutexes.wrapping_add(locks).wrapping_add(threads) as f64 / 1e9),
            );
        }
        let spare = self.half(Item::ExtraMInUse).zip(self.half(Item::ExtraMLength));
        let threads_owned =
            self.word(Item::Mnext).zip(self.word(Item::Nmfreed)).zip(spare).map(|((made, freed), (used, spare))| {
                made.wrapping_sub(freed) as f64 - f64::from(used) - f64::from(spare)
            });
        set(Figure::SchedThreadsTotal, threads_owned);
        let Some(processors) = processors else { return };
        if let Some(created) = self.word(Item::SchedCreated) {
            set(Figure::SchedGoroutinesCreated, Some(created.wrapping_add(processors.created) as f64));
        }
        let queued = number(Item::Runqsize).or_else(|| number(Item::RunqSize)).unwrap_or(0).max(0) as u64;
        let runnable = processors.runnable + queued;
        // Counted by the runtime from Go 1.26 on; before, by looking at the threads.
        let alone = number(Item::GsyscallNoP).map(|count| count.max(0) as u64).or(threads.map(|it| it.not_in_go));
        set(Figure::SchedGoroutinesRunning, Some(processors.running as f64));
        set(Figure::SchedGoroutinesRunnable, Some(runnable as f64));
        if let Some(alone) = alone {
            let not_in_go = processors.not_in_go + alone;
            set(Figure::SchedGoroutinesNotInGo, Some(not_in_go as f64));
            let others = (processors.running + runnable + not_in_go) as i64;
            set(Figure::SchedGoroutinesWaiting, with_system.map(|all| (all - others).max(0) as f64));
        }
        if let Some((queued, executed)) = self.word(Item::CleanupsQueued).zip(self.word(Item::CleanupsExecuted)) {
            set(Figure::GcCleanupsQueued, Some(queued.wrapping_add(processors.cleanups) as f64));
            set(Figure::GcCleanupsExecuted, Some(executed as f64));
        }
    }
}
