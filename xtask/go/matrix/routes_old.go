//go:build !go1.22
// +build !go1.22

package main

import (
	"net/http"
	"strings"

	"sample/self"
)

// routes registers the same routes where patterns are but prefixes. The route that is counted is the template that an
// observer would make of the path.
func routes(mux *http.ServeMux) {
	handle := func(pattern, route string, h http.HandlerFunc) {
		mux.HandleFunc(pattern, self.Route(route, h))
	}
	handle("/ok", "/ok", ok)
	handle("/implicit", "/implicit", implicit)
	handle("/empty", "/empty", empty)
	handle("/old", "/old", old)
	handle("/fail", "/fail", fail)
	handle("/sleep", "/sleep", sleep)
	handle("/items", "/items", create)
	handle("/items/", "/items/{id}", func(w http.ResponseWriter, r *http.Request) {
		item(w, r, strings.TrimPrefix(r.URL.Path, "/items/"))
	})
	handle("/status/", "/status/{id}", func(w http.ResponseWriter, r *http.Request) {
		status(w, strings.TrimPrefix(r.URL.Path, "/status/"))
	})
	handle("/users/", "/users/{id}/orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.URL.Path, "/")
		if len(parts) != 5 {
			http.NotFound(w, r)
			return
		}
		order(w, parts[2], parts[4])
	})
}
