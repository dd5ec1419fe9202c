//go:build go1.22
// +build go1.22

package main

import (
	"net/http"
	"strings"

	"sample/self"
)

// routes registers every route by a pattern with methods and wildcards.
func routes(mux *http.ServeMux) {
	handle := func(pattern string, h http.HandlerFunc) {
		route := pattern[strings.IndexByte(pattern, ' ')+1:]
		mux.HandleFunc(pattern, self.Route(route, h))
	}
	handle("/ok", ok)
	handle("GET /implicit", implicit)
	handle("/empty", empty)
	handle("GET /old", old)
	handle("/fail", fail)
	handle("GET /sleep", sleep)
	handle("POST /items", create)
	for _, method := range []string{"GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"} {
		handle(method+" /items/{id}", func(w http.ResponseWriter, r *http.Request) { item(w, r, r.PathValue("id")) })
	}
	handle("/status/{code}", func(w http.ResponseWriter, r *http.Request) { status(w, r.PathValue("code")) })
	handle("GET /users/{user}/orders/{order}", func(w http.ResponseWriter, r *http.Request) {
		order(w, r.PathValue("user"), r.PathValue("order"))
	})
}
