package main

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"sync"
	"time"
)

// Panics without end: /storm?panics=N in one request that recovers from each; /burst?routes=R&statuses=S in requests in flight at
// one time, each with a route and status of its own; /stuck?n=N in requests that recover and go on until /unstick; /worker?n=N in goroutines that serve nothing, for N milliseconds.
func init() {
	http.HandleFunc("/storm", func(w http.ResponseWriter, r *http.Request) {
		for i := number(r, "panics", 1); i > 0; i-- {
			recovered()
		}
	})
	http.HandleFunc("/burst", func(w http.ResponseWriter, r *http.Request) {
		routes, statuses := number(r, "routes", 1), number(r, "statuses", 1)
		var in, out sync.WaitGroup
		in.Add(routes * statuses)
		connect := within(answering(routes, func() { in.Done(); in.Wait() }))
		for i := 0; i < routes*statuses; i++ {
			c := connect()
			fmt.Fprintf(c, "GET /r%d HTTP/1.1\r\nHost: x\r\nStatus: %d\r\nPanic: 1\r\n\r\n", i%routes, 200+i/routes)
			out.Add(1)
			go func() { defer out.Done(); _, _ = io.Copy(io.Discard, c); c.Close() }()
		}
		out.Wait()
	})
	unstick := make(chan struct{})
	http.HandleFunc("/stuck", func(w http.ResponseWriter, r *http.Request) {
		var in sync.WaitGroup
		in.Add(number(r, "n", 1))
		connect := within(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			recovered()
			in.Done()
			<-unstick
		}))
		for i := number(r, "n", 1); i > 0; i-- {
			c := connect()
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			go func() { _, _ = io.Copy(io.Discard, c); c.Close() }()
		}
		in.Wait()
	})
	http.HandleFunc("/unstick", func(w http.ResponseWriter, r *http.Request) { close(unstick) })
	http.HandleFunc("/worker", func(w http.ResponseWriter, r *http.Request) {
		go func() {
			for i := number(r, "n", 1); i > 0; i-- {
				go recovered()
				go runtime.Goexit()
				time.Sleep(time.Millisecond)
			}
		}()
	})
	http.HandleFunc("/die", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
}

func recovered() {
	defer func() { _ = recover() }()
	panic(1)
}
