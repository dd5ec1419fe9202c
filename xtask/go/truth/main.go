// A service that shows its own runtime by client_golang's collectors, so that what is read from outside can be held against it.
package main

import (
	"flag"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sample/self"
)

var (
	waiting = flag.Int("waiting", 200, "goroutines that wait for a channel for ever")
	work    = flag.Bool("work", true, "allocate, collect, wait and contend all the time")
	again   = flag.Duration("again", 0, "after so long, run the same program anew in this process")
)

func main() {
	flag.Parse()
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	never := make(chan struct{})
	for i := 0; i < *waiting; i++ {
		go func() { <-never }()
	}
	waitInKnownWays()
	mark()
	if *again > 0 {
		time.AfterFunc(*again, runAnew)
	}
	if *work {
		for i := 0; i < 100000; i++ {
			ballast = append(ballast, &[6]*int{})
		}
		for i := 0; i < 2; i++ {
			go churn()
		}
		go contend()
		go collect()
	}
	mux := http.NewServeMux()
	// What moves by itself cannot be compared: the work can be made to rest.
	for path, value := range map[string]uint32{"/still": 1, "/busy": 0} {
		value := value
		mux.HandleFunc(path, func(http.ResponseWriter, *http.Request) { atomic.StoreUint32(&still, value) })
	}
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	self.Serve(mux, self.Options{})
}

// waitInKnownWays starts three goroutines for each of some reasons to wait.
func waitInKnownWays() {
	var locked sync.Mutex
	locked.Lock()
	var read sync.RWMutex
	read.Lock()
	cond := sync.NewCond(&sync.Mutex{})
	var group sync.WaitGroup
	group.Add(1)
	full := make(chan int)
	for i := 0; i < 3; i++ {
		go func() { locked.Lock() }()
		go func() { read.RLock() }()
		go func() { cond.L.Lock(); cond.Wait() }()
		go func() { group.Wait() }()
		go func() { full <- 1 }()
		go func() { time.Sleep(time.Hour) }()
		go func() { select {} }()
	}
}

var (
	still uint32
	kept  [512][]byte
	turns uint64

	// Makes the heap large against what asking for figures allocates.
	ballast []*[6]*int
)

func rest() {
	for atomic.LoadUint32(&still) == 1 {
		time.Sleep(2 * time.Millisecond)
	}
}

// churn allocates small, large and pointer-free objects, and keeps some for a while.
func churn() {
	for i := 0; ; i++ {
		rest()
		size := 1 << uint(i%17)
		buffer := make([]byte, size)
		buffer[0] = byte(i)
		kept[atomic.AddUint64(&turns, 1)%uint64(len(kept))] = buffer
		small := make([]*[3]int, 10)
		for j := range small {
			small[j] = &[3]int{i, j, size}
		}
		runtime.KeepAlive(small)
		if i%64 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

// contend makes goroutines wait for a mutex, and come and go.
func contend() {
	var mutex sync.Mutex
	for {
		rest()
		var group sync.WaitGroup
		for i := 0; i < 4; i++ {
			group.Add(1)
			go func() {
				defer group.Done()
				for j := 0; j < 20; j++ {
					mutex.Lock()
					busy(10 * time.Microsecond)
					mutex.Unlock()
				}
			}()
		}
		group.Wait()
		time.Sleep(5 * time.Millisecond)
	}
}

func busy(d time.Duration) {
	for start := time.Now(); time.Since(start) < d; {
	}
}

// collect asks for collections beside those that the runtime begins.
func collect() {
	for {
		rest()
		time.Sleep(50 * time.Millisecond)
		runtime.GC()
	}
}
