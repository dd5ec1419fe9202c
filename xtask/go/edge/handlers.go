package main

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"time"
)

// number is a query parameter's value, or what it is when missing.
func number(r *http.Request, name string, missing int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil {
		return missing
	}
	return n
}

// pause sleeps for the milliseconds that ?sleep= asks for.
func pause(r *http.Request) {
	if ms := number(r, "sleep", 0); ms > 0 {
		time.Sleep(time.Duration(ms) * time.Millisecond)
	}
}

func ok(w http.ResponseWriter, r *http.Request) {
	pause(r)
	_, _ = io.WriteString(w, "ok\n")
}

func silent(_ http.ResponseWriter, r *http.Request) {
	pause(r)
}

// sleep is what /sleep and, under http.TimeoutHandler, /timeout do.
func sleep(w http.ResponseWriter, r *http.Request) {
	pause(r)
	fmt.Fprintf(w, "slept %d ms\n", number(r, "sleep", 0))
}

func panicBefore(_ http.ResponseWriter, r *http.Request) {
	pause(r)
	panic("before writing")
}

func panicAfter(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, "so far so good\n")
	w.(http.Flusher).Flush()
	pause(r)
	panic("after writing")
}

func abort(_ http.ResponseWriter, r *http.Request) {
	pause(r)
	panic(http.ErrAbortHandler)
}

func goexit(_ http.ResponseWriter, r *http.Request) {
	pause(r)
	runtime.Goexit()
}

// early sends 103 before the real answer (from Go 1.19 on; before, WriteHeader takes any status for the final one).
func early(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Link", "</style.css>; rel=preload; as=style")
	w.WriteHeader(http.StatusEarlyHints)
	pause(r)
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, "after the hints\n")
}

// doubleHeader sets the status twice; the first one counts.
func doubleHeader(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusTeapot)
	w.WriteHeader(http.StatusOK)
}

// sse streams events until the client leaves, or until there were ?events= of them.
func sse(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	events := number(r, "events", -1)
	ticker := time.NewTicker(time.Duration(number(r, "interval", 10)) * time.Millisecond)
	defer ticker.Stop()
	for n := 0; n != events; n++ {
		fmt.Fprintf(w, "data: %d\n\n", n)
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-ticker.C:
		}
	}
}

// wait returns when the client is gone; it never writes.
func wait(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-time.After(time.Minute):
	}
}

// body answers with the number of bytes that the request's body had.
func body(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%d\n", n)
}

// big writes ?bytes= bytes.
func big(w http.ResponseWriter, r *http.Request) {
	chunk := make([]byte, 4096)
	for left := number(r, "bytes", 1<<20); left > 0; left -= len(chunk) {
		if left < len(chunk) {
			chunk = chunk[:left]
		}
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}
