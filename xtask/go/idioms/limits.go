package main

import (
	"net/http"
	"strings"
)

func init() {
	programs["limits"] = limits
	programs["cloning"] = func() http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("/hello/{name}", ok)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { mux.ServeHTTP(w, r.Clone(r.Context())) })
	}
}

// limits are the idioms whose routes are not those of the inner mux, as docs/src/limits.md has them.
func limits() http.Handler {
	users, mirror, outer := http.NewServeMux(), http.NewServeMux(), http.NewServeMux()
	users.HandleFunc("/users/{name}", ok)
	mirror.HandleFunc("/users/{copy}", func(http.ResponseWriter, *http.Request) {})
	cut := func(prefix string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = strings.TrimPrefix(r.URL.Path, prefix)
			users.ServeHTTP(w, r)
		}
	}
	inner := http.NewServeMux()
	inner.HandleFunc("/copied/users/{name}", ok)
	outer.Handle("/copied/", copying(inner))
	other := http.NewServeMux()
	other.HandleFunc("/cloned/{name}", ok)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/v1/"):
			cut("/v1")(w, r)
		case strings.HasPrefix(r.URL.Path, "/v2/"):
			cut("/v2")(w, r)
		case strings.HasPrefix(r.URL.Path, "/users/"):
			users.ServeHTTP(w, r)
			mirror.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/cloned/"):
			done := make(chan bool)
			go func() { other.ServeHTTP(w, r.Clone(r.Context())); close(done) }()
			<-done
		default:
			outer.ServeHTTP(w, r)
		}
	})
}
