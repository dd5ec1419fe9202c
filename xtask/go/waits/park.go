package main

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// passed counts the tokens that have been handed over: two parks each.
var passed int64

type progress struct {
	Parks      int64   `json:"parks"`
	CPUSeconds float64 `json:"cpu_seconds"`
}

func parked() progress {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	return progress{2 * atomic.LoadInt64(&passed), cpu.Seconds()}
}

// paced passes tokens to and fro, about as many parks a second as asked for; a rate beyond what the machine can do means as
// fast as it can. What the pacing itself sleeps is at most 100 parks a second.
func paced(perSecond int) {
	pairs := runtime.GOMAXPROCS(0)
	share := float64(perSecond) / 2 / float64(pairs)
	for i := 0; i < pairs; i++ {
		there, back := make(chan int), make(chan int)
		go func() {
			for token := range there {
				back <- token
			}
		}()
		go func() {
			begin, done := time.Now(), 0.0
			for {
				due := time.Since(begin).Seconds() * share
				if due-done > share {
					// More than a second behind: the machine cannot do it.
					done = due - share
				}
				for ; done < due; done++ {
					there <- 1
					<-back
					atomic.AddInt64(&passed, 1)
				}
				time.Sleep(10 * time.Millisecond * time.Duration(pairs))
			}
		}()
	}
}

var contended sync.Mutex

// hot lets goroutines fight for one mutex for ever.
func hot() string {
	for i := 0; i < 8; i++ {
		go fight()
	}
	return "fighting"
}

//go:noinline
func fight() {
	for {
		criticalSection()
	}
}

//go:noinline
func criticalSection() {
	contended.Lock()
	time.Sleep(time.Millisecond)
	contended.Unlock()
}
