package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// handler has what is hard to count in a mux, behind middleware of the usual kinds.
func handler() http.Handler {
	mux := http.NewServeMux()
	for path, h := range map[string]http.HandlerFunc{
		"/ok":       ok,
		"/body":     body,
		"/refuse":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) },
		"/hints":    hints,
		"/late":     func(w http.ResponseWriter, _ *http.Request) { ok(w, nil); http.Error(w, "late", http.StatusBadGateway) },
		"/content":  content,
		"/empty":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"/trailers": trailers,
		"/only":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusProcessing) },
		"/moved":    http.RedirectHandler("/ok", http.StatusFound).ServeHTTP,
		"/sleeps":   sleeps,
		"/hijacks":  hijacks,
		"/switches": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusSwitchingProtocols) },
		"/duplex":   duplex,
		// What is on the wire when the connection is taken is the status.
		"/hijacks-late": hijacksLate,
		"/semi/":        ok,
	} {
		mux.HandleFunc(path, h)
	}
	mux.Handle("/small", http.MaxBytesHandler(http.HandlerFunc(body), 4))
	return wrapped(wrapped(http.AllowQuerySemicolons(mux)))
}

// wrapped is middleware with a writer of its own, twice around everything.
func wrapped(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(writer{w}, r) })
}

type writer struct{ http.ResponseWriter }

func (w writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }

func body(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	ok(w, r)
}

// hints sends informational answers before its own.
func hints(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusProcessing)
	w.WriteHeader(http.StatusEarlyHints)
	http.NotFound(w, r)
}

func content(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Etag", `"one"`)
	http.ServeContent(w, r, "a.txt", time.Unix(1e9, 0), strings.NewReader("0123456789"))
}

func trailers(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "Sum")
	ok(w, r)
	w.Header().Set("Sum", "1")
}

// begun is told of each request that sleeps.
var begun = make(chan bool, 16)

func sleeps(w http.ResponseWriter, r *http.Request) {
	begun <- true
	time.Sleep(100 * time.Millisecond)
	ok(w, r)
}

// hijacks takes the connection from behind the middleware.
func hijacks(w http.ResponseWriter, _ *http.Request) {
	c, _, err := http.NewResponseController(w).Hijack()
	must(err)
	fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n")
	must(c.Close())
}

func hijacksLate(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusAccepted)
	must(http.NewResponseController(w).Flush())
	c, _, err := http.NewResponseController(w).Hijack()
	must(err)
	must(c.Close())
}

func duplex(w http.ResponseWriter, r *http.Request) {
	must(http.NewResponseController(w).EnableFullDuplex())
	body(w, r)
}
