package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
)

// upgrade takes the connection over and speaks something else until the client goes.
func upgrade(w http.ResponseWriter) {
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	_, _ = fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
	_ = rw.Flush()
	_, _ = io.Copy(c, rw)
}

// elsewhere runs the rest on a goroutine of its own and waits for it, as middleware that gives requests a deadline does. What it
// panics with, it panics with on its own goroutine too.
func elsewhere(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		done := make(chan interface{}, 1)
		go func() {
			defer func() { done <- recover() }()
			next(w, r)
		}()
		if p := <-done; p != nil {
			panic(p)
		}
	}
}

// dropCode makes the kernel drop the pages of this program's code, and with them the probes in it.
func dropCode() {
	exe, _ := os.Readlink("/proc/self/exe")
	maps, _ := os.ReadFile("/proc/self/maps")
	for _, line := range strings.Split(string(maps), "\n") {
		var start, end uintptr
		var mode string
		n, _ := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode)
		if n == 3 && mode == "r-xp" && strings.HasSuffix(line, exe) {
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, start, end-start, syscall.MADV_DONTNEED)
		}
	}
}

func init() {
	more = append(more, hijacks)
}

func hijacks(mux *http.ServeMux) {
	mux.HandleFunc("/ws/{id}", elsewhere(func(w http.ResponseWriter, _ *http.Request) { upgrade(w) }))
	mux.HandleFunc("/here/{id}", func(w http.ResponseWriter, _ *http.Request) { upgrade(w) })
	// Taken over, and then a panic, which the connection's own goroutine dies of.
	mux.HandleFunc("/ws-panic/{id}", elsewhere(func(w http.ResponseWriter, _ *http.Request) {
		upgrade(w)
		panic(http.ErrAbortHandler)
	}))
	// Answered by the handler's own goroutine after another could not take it over: it is no connection any more.
	mux.HandleFunc("/twice/{id}", func(w http.ResponseWriter, _ *http.Request) {
		upgrade(w)
		done := make(chan error)
		go func() {
			_, _, err := w.(http.Hijacker).Hijack()
			done <- err
		}()
		<-done
	})
	// Each goes on once the other was asked for; /release leaves the program without its probes before, so that nothing that is
	// in flight is seen to end.
	none, abort := func() {}, func() { panic(http.ErrAbortHandler) }
	for _, of := range []struct {
		hold, release string
		before, then  func()
	}{
		{"/hold", "/release", dropCode, none},
		{"/hold-on", "/release-on", none, none},
		{"/hold-panic", "/release-panic", none, abort},
	} {
		released, before, then := make(chan struct{}), of.before, of.then
		mux.HandleFunc(of.hold, func(w http.ResponseWriter, r *http.Request) {
			<-released
			then()
			ok(w, r)
		})
		mux.HandleFunc(of.release, func(w http.ResponseWriter, r *http.Request) {
			before()
			close(released)
			ok(w, r)
		})
	}
}
