package main

import (
	"net/http"
	"strings"
)

func init() {
	programs["rewriting"] = func() http.Handler { return http.HandlerFunc(rewrite) }
}

// rewrite changes what a request says of itself, as method overrides, hand-written proxies and Traefik's middleware do.
func rewrite(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/things/"):
		r.Method = http.MethodDelete
	case strings.HasPrefix(r.URL.Path, "/svc/a/"):
		r.URL.Path = "/internal/" + r.URL.Path[len("/svc/a/"):]
	case strings.HasPrefix(r.URL.Path, "/uri/"):
		r.URL.Path = "/hidden"
		r.RequestURI = r.URL.RequestURI()
	case strings.HasPrefix(r.URL.Path, "/sent-on/"):
		r.Method, r.RequestURI = http.MethodPut, ""
	}
	ok(w, r)
}
