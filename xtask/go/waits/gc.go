package main

import (
	"runtime"
	"runtime/metrics"
	"sync/atomic"
)

// collected is what the runtime itself says of the cycles.
type collected struct {
	// Pauses of the garbage collector, from the runtime's histogram.
	Pauses uint64 `json:"pauses"`
	// How long they were, from MemStats.PauseTotalNs.
	Seconds float64 `json:"seconds"`
	Cycles  uint32  `json:"cycles"`
	// How often this function stopped the world to read MemStats.
	Reads int `json:"reads"`
}

var keep [64][]byte

// collect forces n cycles while other goroutines allocate.
func collect(n int) collected {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	pauses := countPauses()
	var done, ended int32
	const workers = 2
	for i := 0; i < workers; i++ {
		go func() {
			for j := 0; atomic.LoadInt32(&done) == 0; j++ {
				keep[j%len(keep)] = make([]byte, 1024)
				if j%1000 == 0 {
					runtime.Gosched()
				}
			}
			atomic.AddInt32(&ended, 1)
		}()
	}
	for i := 0; i < n; i++ {
		runtime.GC()
	}
	atomic.StoreInt32(&done, 1)
	for atomic.LoadInt32(&ended) < workers {
		runtime.Gosched()
	}
	// A cycle that the workers began ends within this one.
	runtime.GC()
	runtime.ReadMemStats(&after)
	return collected{
		Pauses:  countPauses() - pauses,
		Seconds: float64(after.PauseTotalNs-before.PauseTotalNs) / 1e9,
		Cycles:  after.NumGC - before.NumGC,
		Reads:   2,
	}
}

func countPauses() uint64 {
	sample := []metrics.Sample{{Name: "/gc/pauses:seconds"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0
	}
	total := uint64(0)
	for _, n := range sample[0].Value.Float64Histogram().Counts {
		total += n
	}
	return total
}
