//! Which functions of the runtime tell of which of its variables.

use crate::globals::Global;

/// Each variable's derivations.
pub(crate) const DERIVATIONS: &[(Global, &[&[&str]])] = &[
    (
        Global::Sched,
        &[
            &["runtime.schedtrace"],
            &["runtime.handoffp"],
            &["runtime.checkdead"],
            &["runtime.schedEnableUser"],
            &["runtime.sysmon"],
        ],
    ),
    (Global::Allgs, &[&["runtime.allgadd"], &["runtime.forEachG"]]),
    (Global::Allglen, &[&["runtime.allgadd"], &["runtime.forEachGRace"]]),
    (Global::Allgptr, &[&["runtime.allgadd"], &["runtime.forEachGRace"]]),
    (Global::Allm, &[&["runtime.mcommoninit"], &["runtime.mexit"], &["runtime.schedtrace"]]),
    (
        Global::Allp,
        &[
            &["runtime.procresize"],
            &["runtime.preemptall"],
            &["runtime.checkdead"],
            &["runtime.retake"],
            &["runtime.gcMarkTinyAllocs"],
        ],
    ),
    (
        Global::Gomaxprocs,
        &[
            &["runtime.procresize", "runtime.startTheWorldWithSema"],
            &["runtime.handoffp", "runtime.sysmon"],
            &["runtime.gcStart", "runtime.gcBgMarkStartWorkers"],
        ],
    ),
    (Global::Ncpu, &[&["runtime.lock2"], &["runtime.schedinit"], &["runtime.gcStart", "runtime.osinit"]]),
    (
        Global::Memstats,
        &[
            &["runtime.gcMarkTermination"],
            &["runtime.(*mheap).init"],
            &["runtime.newBucket", "runtime.(*mcache).refill"],
        ],
    ),
    (
        Global::GcController,
        &[
            &["runtime.gcMarkTermination"],
            &["runtime.gcFlushBgCredit", "runtime.gcAssistAlloc"],
            &["runtime.gcPaceScavenger"],
            &["runtime.pollFractionalWorkerExit", "runtime.gcStart"],
        ],
    ),
    (
        Global::Work,
        &[&["runtime.gcMarkTermination"], &["runtime.gcMark"], &["runtime.gcMarkDone"], &["runtime.gcStart"]],
    ),
    (
        Global::Mheap,
        &[
            &["runtime.gcSweep"],
            &["runtime.(*sweepLocked).sweep"],
            &["runtime.deductSweepCredit", "runtime.gcResetMarkState"],
            &["runtime.markrootSpans"],
        ],
    ),
    (
        Global::GcCpuLimiter,
        &[
            &["runtime.(*limiterEvent).stop"],
            &["runtime.(*gcControllerState).findRunnableGCWorker"],
            &["runtime.gcMarkDone", "runtime.gcStart"],
            &["runtime.procresize", "runtime.gcAssistAlloc1"],
        ],
    ),
    (Global::Ncgocall, &[&["runtime.mexit"], &["runtime.NumCgoCall"], &["runtime.initMetrics.func1"]]),
    (Global::StartingStackSize, &[&["runtime.gfget"], &["runtime.gfput"], &["runtime.gcComputeStartingStackSize"]]),
    (Global::ClassToSize, &[&["runtime.rawbyteslice"], &["runtime.growslice"], &["runtime.mallocinit"]]),
    (Global::WaitReasonStrings, &[&["runtime.goroutineheader"], &["runtime.waitReason.String"]]),
    (
        Global::Gcphase,
        &[
            &["runtime.gcMark", "runtime.gcSweep"],
            &["runtime.gcMarkDone", "runtime.stackfree"],
            &["runtime.(*gcWork).balance", "runtime.queuefinalizer"],
            &["runtime.gcStart", "runtime.freeSomeWbufs"],
        ],
    ),
    (
        Global::GcBlackenEnabled,
        &[
            &["runtime.gcParkAssist", "runtime.gcMarkDone"],
            &["runtime.gcAssistAlloc1", "runtime.gcStart"],
            &["runtime.handoffp", "runtime.gcBgMarkWorker"],
        ],
    ),
    (Global::Forcegc, &[&["runtime.sysmon"], &["runtime.forcegchelper"]]),
    (Global::ExtraMInUse, &[&["runtime.getExtraM"], &["runtime.dropm"], &["runtime.checkmcount"]]),
    (
        Global::ExtraMLength,
        &[
            &["runtime.getExtraM"],
            &["runtime.addExtraM", "runtime.newextram"],
            &["runtime.checkmcount"],
            &["runtime.checkdead"],
        ],
    ),
    (Global::Finqueued, &[&["runtime.queuefinalizer"], &["runtime.finReadQueueStats"]]),
    (Global::Finexecuted, &[&["runtime.runFinalizers"], &["runtime.finReadQueueStats"]]),
    (Global::GcCleanups, &[&["runtime.findRunnable"], &["runtime.runCleanups"], &["runtime.gcMarkTermination"]]),
    (
        Global::Panicking,
        &[
            &["runtime.startpanic_m"],
            &["runtime.dopanic_m"],
            &["runtime.main", "runtime.checkdead"],
            &["runtime.pcvalue"],
        ],
    ),
    (Global::RuntimeInitTime, &[&["runtime.gcMarkTermination"], &["runtime.main"]]),
];
