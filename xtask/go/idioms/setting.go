//go:build go1.23
// +build go1.23

package main

import (
	"net/http"
	"strings"
)

// A router of another library, which tells its pattern by the request it was given, or by a copy.
func init() {
	programs["setting"] = func() http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/copied/") {
				r = r.WithContext(r.Context())
				r.Pattern = "/copied/{name}"
			} else {
				r.Pattern = "/given/{name}"
			}
			ok(w, r)
		})
	}
}
