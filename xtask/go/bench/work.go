package main

import (
	"net/http"
	"runtime"
	"sync/atomic"
	"time"
)

var sink atomic.Uint64

// work1ms answers after a millisecond's worth of arithmetic, measured at the start: the amount of work is fixed, not the
// time, so that what slows the process down shows.
func work1ms() http.HandlerFunc {
	rounds := calibrate(time.Millisecond)
	return func(w http.ResponseWriter, r *http.Request) {
		sink.Add(spin(rounds))
		hello(w, r)
	}
}

func spin(rounds int) uint64 {
	x := uint64(88172645463325252)
	for i := 0; i < rounds; i++ {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
	}
	return x
}

// calibrate returns how many rounds take that long, by the fastest of many tries.
func calibrate(d time.Duration) int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const rounds = 100_000
	best := time.Hour
	for i := 0; i < 50; i++ {
		start := time.Now()
		sink.Add(spin(rounds))
		best = min(best, time.Since(start))
	}
	return int(float64(rounds) * float64(d) / float64(best))
}

// pingpong starts goroutines in pairs that pass a token to and fro for ever, a bit of sleep in between.
func pingpong(goroutines int) {
	for i := 0; i < goroutines/2; i++ {
		there, back := make(chan int), make(chan int)
		go func() {
			for token := range there {
				back <- token
			}
		}()
		go func() {
			for token := 0; ; token++ {
				there <- token
				<-back
				if token%10 == 0 {
					time.Sleep(20 * time.Millisecond)
				}
			}
		}()
	}
}
