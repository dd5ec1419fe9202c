package main

import (
	"net/http"
	"strings"
)

func init() {
	programs["prefixes"] = prefixes
	programs["copied-prefixes"] = func() http.Handler { return copying(prefixes()) }
	programs["timeouts-prefixes"] = func() http.Handler { return timeouts(prefixes()) }
	programs["one-prefix"] = func() http.Handler { return http.StripPrefix("/base", named("")) }
}

// prefixes has muxes behind others, of which each takes its part of the path off.
func prefixes() http.Handler {
	api := http.NewServeMux()
	api.HandleFunc("GET /users/{name}", ok)
	api.HandleFunc("/orders/{name}", ok)
	api.HandleFunc("/gone/{name}", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	api.HandleFunc("/panics/{name}", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	api.HandleFunc("/files/{name}/", ok)
	deep := http.NewServeMux()
	deep.Handle("/deep/", http.StripPrefix("/deep", api))
	tenants := http.NewServeMux()
	tenants.Handle("/v2/", http.StripPrefix("/v2", api))
	tenants.Handle("/", api)
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", http.StripPrefix("/api/v1", api))
	mux.Handle("GET /api/v2/", http.StripPrefix("/api/v2", api))
	mux.Handle("/three/", http.StripPrefix("/three", deep))
	mux.HandleFunc("/t/{tenant}/", func(w http.ResponseWriter, r *http.Request) {
		tenant := strings.SplitN(r.URL.Path, "/", 4)[2]
		http.StripPrefix("/t/"+tenant, tenants).ServeHTTP(w, r)
	})
	mux.Handle("/within/", http.StripPrefix("/within/it", api))
	mux.Handle("/rest/{path...}", http.StripPrefix("/rest", timeouts(api)))
	mux.Handle("/", http.StripPrefix("/root", api))
	return mux
}
