package main

import (
	"io"
	"net/http"
	"strings"
)

func init() {
	programs["subtrees"] = subtrees
	programs["copied-subtrees"] = func() http.Handler { return copying(subtrees()) }
}

// copying is middleware that hands on a copy, as a tracer's does.
func copying(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(r.Context()))
	})
}

// subtrees has routers behind patterns that take all that is below them.
func subtrees() http.Handler {
	inner := http.NewServeMux()
	inner.HandleFunc("/users/{id}", ok)
	inner.HandleFunc("/orders/{id}", ok)
	files := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }
	mux := http.NewServeMux()
	mux.HandleFunc("/plain/{name}", ok)
	mux.HandleFunc("/only/{$}", ok)
	mux.Handle("/api/v1/", http.StripPrefix("/api/v1", inner))
	mux.HandleFunc("/static/", files)
	mux.HandleFunc("/buckets/{bucket}/{key...}", files)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/", r.URL.Path == "/products", strings.HasPrefix(r.URL.Path, "/articles/"):
			ok(w, r)
		default:
			http.NotFound(w, r)
		}
	})
	return mux
}
