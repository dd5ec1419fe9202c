//! What `cargo xtask offsets` measures: structs and fields of Go's standard library, and of libraries by version.

/// Types of the standard library and their wanted fields.
pub(super) const STANDARD: &[(&str, &str)] = &[
    (
        "runtime.g",
        "stack.lo stack.hi stackguard0 stackguard1 m sched.sp sched.pc sched.bp atomicstatus goid schedlink waitsince waitreason preempt tracking trackingSeq trackingStamp runnableTime lockedm parentGoid gopc startpc waiting labels timer selectDone gcAssistBytes syscallsp syscallpc inMarkAssist sleepWhen syncGroup bubble",
    ),
    (
        "runtime.m",
        "g0 procid gsignal curg p nextp oldp id mallocing locks spinning blocked incgo ncgo alllink schedlink lockedg waitunlockf freelink mLockProfile.waitTime ncgocall",
    ),
    (
        "runtime.p",
        "id status schedtick syscalltick m mcache runqhead runqtail runq runnext gFree gFree.n goidcache goidcacheend timers numTimers statsSeq preempt gcMarkWorkerMode gcStopTime gFree.head gFree.size goroutinesCreated cleanupsQueued",
    ),
    (
        "runtime.schedt",
        "goidgen lastpoll pollUntil lock midle nmidle nmidlelocked mnext maxmcount nmsys nmfreed ngsys pidle npidle nmspinning needspinning runq runqsize gFree gFree.n gcwaiting stopwait sysmonwait procresizetime totaltime timeToRun idleTime totalMutexWaitTime stwStoppingTimeGC stwStoppingTimeOther stwTotalTimeGC stwTotalTimeOther totalRuntimeLockWaitTime pollingNet runq.size gFree.stack.size gFree.noStack.size customGOMAXPROCS nGsyscallNoP goroutinesCreated",
    ),
    ("runtime.timeHistogram", "counts underflow overflow"),
    (
        "runtime.mstats",
        "heapStats heapStats.gen stacks_sys mspan_sys mcache_sys buckhash_sys gcMiscSys other_sys last_gc_unix pause_total_ns pause_ns pause_end numgc numforcedgc gc_cpu_fraction last_gc_nanotime lastHeapInUse enablegc gcPauseDist lastScanStats",
    ),
    (
        "runtime.gcControllerState",
        "gcPercent memoryLimit heapMinimum gcPercentHeapGoal sweepDistMinTrigger triggered lastHeapGoal heapLive heapScan heapMarked assistTime dedicatedMarkTime fractionalMarkTime idleMarkTime markStartTime heapInUse heapReleased heapFree totalAlloc totalFree mappedReady lastStackScan globalsScan heapGoal",
    ),
    (
        "runtime.workType",
        "bytesMarked nproc tstart nwait mode userForced initialHeapLive cycles stwprocs maxprocs tSweepTerm tMark tMarkTerm tEnd pauseNS pauseStart heap0 heap1 heap2 cpuStats goroutineLeak",
    ),
    ("runtime.mheap", "pages sweepgen allspans pagesInUse spanalloc.inuse cachealloc.inuse"),
    ("runtime.gcCPULimiterState", "lastEnabledCycle"),
    ("runtime.cleanupQueue", "queued executed"),
    (
        "runtime.heapStatsDelta",
        "committed released inHeap inStacks inWorkBufs inPtrScalarBits tinyAllocCount largeAlloc largeAllocCount smallAllocCount largeFree largeFreeCount smallFreeCount",
    ),
    ("runtime.sudog", "g next elem acquiretime releasetime waitlink c success"),
    (
        "runtime.moduledata",
        "pcHeader funcnametab.array cutab.array filetab.array pctab.array pclntable.array ftab.array ftab.len findfunctab minpc maxpc text etext noptrdata enoptrdata data edata bss ebss noptrbss enoptrbss types etypes rodata gofunc modulename.str next epclntab typedesclen itaboffset itabsize",
    ),
    (
        "runtime.pcHeader",
        "magic pad1 minLC ptrSize nfunc nfiles textStart funcnameOffset cuOffset filetabOffset pctabOffset pclnOffset",
    ),
    (
        "runtime._func",
        "entryOff nameOff args deferreturn pcsp pcfile pcln npcdata cuOffset startLine funcID flag nfuncdata",
    ),
    ("runtime.worldStop", "reason start startedStopping finishedStopping stoppingCPUTime"),
    (
        "net/http.Request",
        "Method URL Proto ProtoMajor Header ContentLength Host RemoteAddr RequestURI TLS Response ctx pat matches Pattern",
    ),
    ("net/url.URL", "Scheme Host Path RawPath RawQuery"),
    ("net/http.response", "conn req wroteHeader cw handlerHeader written contentLength status handlerDone"),
    ("net/http.conn", "server rwc remoteAddr tlsState r curReq curState hijackedv"),
    ("net/http.Response", "Status StatusCode Proto ContentLength Request"),
    ("net/http.pattern", "str method host segments loc"),
    ("net/http.http2responseWriter", "rws"),
    ("net/http.http2responseWriterState", "stream req conn status wroteHeader sentHeader handlerDone wroteBytes"),
    ("net/http.http2stream", "sc id ctx state"),
    ("net/http/internal/http2.responseWriter", "rws"),
    (
        "net/http/internal/http2.responseWriterState",
        "stream req conn status wroteHeader sentHeader handlerDone wroteBytes",
    ),
    ("net/http/internal/http2.stream", "sc id ctx state"),
    (
        "net/http/internal/http2.ServerRequest",
        "Context Proto Method URL Header Host ContentLength RemoteAddr RequestURI",
    ),
    (
        "database/sql.DB",
        "waitDuration freeConn numOpen closed maxIdleCount maxOpen waitCount maxIdleClosed maxIdleTimeClosed maxLifetimeClosed",
    ),
];

/// A library whose structs are read.
pub(super) struct Library {
    pub(super) module: &'static str,
    pub(super) versions: &'static [&'static str],
    pub(super) source: &'static str,
    pub(super) types: &'static [(&'static str, &'static str)],
}

/// Libraries whose structs are read, keyed by module version: between two versions a value holds only if both agree.
pub(super) const LIBRARIES: &[Library] = &[
    Library {
        module: "golang.org/x/net",
        versions: &[
            "v0.0.0-20210405180319-a5a99cb37ef4",
            "v0.0.0-20220127200216-cd36cc0744dd",
            "v0.1.0",
            "v0.7.0",
            "v0.17.0",
            "v0.23.0",
            "v0.30.0",
            "v0.38.0",
            "v0.45.0",
            "v0.50.0",
            "v0.57.0",
            "v0.62.0",
        ],
        source: "package main\n\nimport (\n\t\"net/http\"\n\n\t\"golang.org/x/net/http2\"\n)\n\nfunc main() {\n\
                 \ts := &http.Server{}\n\thttp2.ConfigureServer(s, nil)\n\t(&http2.Server{}).ServeConn(nil, nil)\n\
                 \ts.ListenAndServe()\n}\n",
        types: &[
            ("golang.org/x/net/http2.responseWriter", "rws"),
            (
                "golang.org/x/net/http2.responseWriterState",
                "stream req conn status wroteHeader sentHeader handlerDone wroteBytes",
            ),
        ],
    },
    Library {
        module: "google.golang.org/grpc",
        versions: &[
            "v1.30.0", "v1.33.2", "v1.36.1", "v1.37.0", "v1.39.1", "v1.40.0", "v1.40.1", "v1.41.0", "v1.45.0",
            "v1.53.0", "v1.58.3", "v1.65.0", "v1.65.1", "v1.66.0", "v1.68.0", "v1.68.2", "v1.69.0", "v1.72.1",
            "v1.76.0", "v1.77.0", "v1.79.0", "v1.83.1", "v1.84.0", "v1.85.0",
        ],
        source: "package main\n\nimport (\n\t\"context\"\n\t\"net\"\n\n\t\"google.golang.org/grpc\"\n)\n\nfunc main() {\n\
                 \tl, _ := net.Listen(\"tcp\", \"127.0.0.1:0\")\n\tc, _ := grpc.Dial(l.Addr().String(), grpc.WithInsecure())\n\
                 \tc.Invoke(context.Background(), \"/a/b\", nil, nil)\n\tgrpc.NewServer().Serve(l)\n}\n",
        types: &[
            ("google.golang.org/grpc/internal/transport.Stream", "id ctx method"),
            ("google.golang.org/grpc/internal/transport.ServerStream", "Stream Stream.method"),
            ("google.golang.org/grpc/internal/transport.CallHdr", "Host Method"),
            ("google.golang.org/grpc/internal/status.Status", "s"),
            ("google.golang.org/grpc/internal/status.Error", "e s"),
            ("google.golang.org/grpc.csAttempt", "cs"),
            ("google.golang.org/grpc.clientStream", "callHdr desc"),
        ],
    },
    Library {
        module: "github.com/gin-gonic/gin",
        versions: &["v1.5.0", "v1.6.3", "v1.7.0", "v1.7.7", "v1.8.1", "v1.9.1", "v1.10.1", "v1.11.0", "v1.12.0"],
        source: "package main\n\nimport (\n\t\"net/http\"\n\n\t\"github.com/gin-gonic/gin\"\n)\n\nfunc main() {\n\
                 \thttp.ListenAndServe(\":0\", gin.Default())\n}\n",
        types: &[("github.com/gin-gonic/gin.Context", "fullPath Request")],
    },
    Library {
        module: "github.com/labstack/echo/v4",
        versions: &[
            "v4.1.16", "v4.5.0", "v4.9.0", "v4.10.2", "v4.11.4", "v4.12.0", "v4.13.2", "v4.13.4", "v4.14.0", "v4.15.4",
            "v4.16.4",
        ],
        source: "package main\n\nimport (\n\t\"net/http\"\n\n\t\"github.com/labstack/echo/v4\"\n)\n\nfunc main() {\n\
                 \thttp.ListenAndServe(\":0\", echo.New())\n}\n",
        types: &[("github.com/labstack/echo/v4.context", "path request")],
    },
    Library {
        module: "github.com/go-chi/chi/v5",
        versions: &["v5.0.0", "v5.0.1", "v5.0.8", "v5.1.0", "v5.2.5", "v5.5.0"],
        source: "package main\n\nimport (\n\t\"net/http\"\n\n\t\"github.com/go-chi/chi/v5\"\n)\n\nfunc main() {\n\
                 \thttp.ListenAndServe(\":0\", chi.NewRouter())\n}\n",
        types: &[("github.com/go-chi/chi/v5.Context", "RoutePatterns parentCtx")],
    },
    Library {
        module: "github.com/gorilla/mux",
        versions: &["v1.7.0", "v1.7.4", "v1.8.0", "v1.8.1"],
        source: "package main\n\nimport (\n\t\"net/http\"\n\n\t\"github.com/gorilla/mux\"\n)\n\nfunc main() {\n\
                 \thttp.ListenAndServe(\":0\", mux.NewRouter())\n}\n",
        types: &[
            ("github.com/gorilla/mux.Route", "routeConf.regexp.path"),
            ("github.com/gorilla/mux.routeRegexp", "template"),
        ],
    },
    Library {
        module: "github.com/emicklei/go-restful/v3",
        versions: &["v3.8.0", "v3.10.2", "v3.12.2", "v3.14.0"],
        source: "package main\n\nimport (\n\t\"net/http\"\n\n\trestful \"github.com/emicklei/go-restful/v3\"\n)\n\nfunc main() {\n\
                 \thttp.ListenAndServe(\":0\", restful.NewContainer())\n}\n",
        types: &[("github.com/emicklei/go-restful/v3.Route", "Path")],
    },
];
