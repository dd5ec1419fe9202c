package main

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Whatever a runtime can do without end: /goroutines?n=N that wait for ever, /threads?n=N that end with their goroutine,
// /collect?seconds=S one collection after another. With -exec N the program executes itself N times before it serves, with -exit it
// ends at once.
func init() {
	http.HandleFunc("/goroutines", func(w http.ResponseWriter, r *http.Request) {
		for i := number(r, "n", 1); i > 0; i-- {
			go func() { select {} }()
		}
	})
	http.HandleFunc("/threads", func(w http.ResponseWriter, r *http.Request) {
		var out sync.WaitGroup
		for i := number(r, "n", 1); i > 0; i-- {
			out.Add(1)
			// A goroutine that ends while it is locked to its thread takes the thread with it.
			go func() { runtime.LockOSThread(); time.Sleep(time.Millisecond); out.Done() }()
		}
		out.Wait()
	})
	http.HandleFunc("/collect", func(w http.ResponseWriter, r *http.Request) {
		end := time.Now().Add(time.Duration(number(r, "seconds", 1)) * time.Second)
		collections := 0
		for ; time.Now().Before(end); collections++ {
			runtime.GC()
		}
		_, _ = fmt.Fprintln(w, collections)
	})
}

// again executes the program in place of itself, if it is to be done once more.
func again(times int) error {
	if times <= 0 {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, []string{os.Args[0], "-exec", strconv.Itoa(times - 1)}, os.Environ())
}
