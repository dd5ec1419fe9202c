package main

import (
	"log"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// kind is one way to block, and what this program knows of it.
type kind struct {
	name  string
	count int64
	nanos int64
}

func (k *kind) wait(block func()) {
	begin := time.Now()
	block()
	atomic.AddInt64(&k.nanos, int64(time.Since(begin)))
	atomic.AddInt64(&k.count, 1)
}

func (k *kind) sleep(d time.Duration) {
	k.wait(func() { time.Sleep(d) })
}

var (
	mutex     = kind{name: "mutex"}
	receive   = kind{name: "receive"}
	sleep     = kind{name: "sleep"}
	io        = kind{name: "io"}
	selection = kind{name: "select"}
	group     = kind{name: "waitgroup"}
	cond      = kind{name: "cond"}
	kinds     = []*kind{&mutex, &receive, &sleep, &io, &selection, &group, &cond}

	running int32
	loops   int32
)

type count struct {
	Name    string  `json:"name"`
	Count   int64   `json:"count"`
	Seconds float64 `json:"seconds"`
}

func counts() []count {
	var all []count
	for _, k := range kinds {
		all = append(all, count{k.name, atomic.LoadInt64(&k.count), float64(atomic.LoadInt64(&k.nanos)) / 1e9})
	}
	return all
}

// start lets every kind block in loops of its own, until stop.
func start() string {
	atomic.StoreInt32(&running, 1)
	for _, loop := range []func(){heldMutex, fedChannel, sleeper, pipe, selecting, waitGroup, condition} {
		atomic.AddInt32(&loops, 1)
		loop := loop
		go func() {
			defer atomic.AddInt32(&loops, -1)
			for atomic.LoadInt32(&running) == 1 {
				loop()
			}
		}()
	}
	return "started"
}

// stop waits, without blocking as the loops do, until all have ended.
func stop() []count {
	atomic.StoreInt32(&running, 0)
	for atomic.LoadInt32(&loops) > 0 {
		runtime.Gosched()
	}
	return counts()
}

// until spins, so that waiting for the other side is no blocking.
func until(flag *int32) {
	for atomic.LoadInt32(flag) == 0 {
		runtime.Gosched()
	}
}

func heldMutex() {
	var mu sync.Mutex
	var asked, got int32
	mu.Lock()
	go func() {
		atomic.StoreInt32(&asked, 1)
		mutex.wait(mu.Lock)
		mu.Unlock()
		atomic.StoreInt32(&got, 1)
	}()
	until(&asked)
	sleep.sleep(20 * time.Millisecond)
	mu.Unlock()
	until(&got)
}

func fedChannel() {
	fed := make(chan int)
	var got int32
	go func() {
		for i := 0; i < 20; i++ {
			receive.wait(func() { <-fed })
		}
		atomic.StoreInt32(&got, 1)
	}()
	for i := 0; i < 20; i++ {
		sleep.sleep(5 * time.Millisecond)
		fed <- i
	}
	until(&got)
}

func sleeper() {
	sleep.sleep(time.Millisecond)
}

func pipe() {
	r, w, err := os.Pipe()
	if err != nil {
		log.Fatal(err)
	}
	var got int32
	go func() {
		one := make([]byte, 1)
		for i := 0; i < 20; i++ {
			io.wait(func() { _, _ = r.Read(one) })
		}
		atomic.StoreInt32(&got, 1)
	}()
	for i := 0; i < 20; i++ {
		sleep.sleep(3 * time.Millisecond)
		_, _ = w.Write([]byte{1})
	}
	until(&got)
	_ = r.Close()
	_ = w.Close()
}

func selecting() {
	one, other := make(chan int), make(chan int)
	var got int32
	go func() {
		for i := 0; i < 20; i++ {
			selection.wait(func() {
				select {
				case <-one:
				case <-other:
				}
			})
		}
		atomic.StoreInt32(&got, 1)
	}()
	for i := 0; i < 10; i++ {
		sleep.sleep(4 * time.Millisecond)
		one <- i
		sleep.sleep(4 * time.Millisecond)
		other <- i
	}
	until(&got)
}

func waitGroup() {
	var wg sync.WaitGroup
	var asked, got int32
	wg.Add(1)
	go func() {
		atomic.StoreInt32(&asked, 1)
		group.wait(wg.Wait)
		atomic.StoreInt32(&got, 1)
	}()
	until(&asked)
	sleep.sleep(2 * time.Millisecond)
	wg.Done()
	until(&got)
}

func condition() {
	var mu sync.Mutex
	c := sync.NewCond(&mu)
	var asked, got int32
	go func() {
		mu.Lock()
		atomic.StoreInt32(&asked, 1)
		cond.wait(c.Wait)
		mu.Unlock()
		atomic.StoreInt32(&got, 1)
	}()
	until(&asked)
	sleep.sleep(3 * time.Millisecond)
	c.Signal()
	until(&got)
}
