package main

import "net/http"

func init() {
	programs["batches"] = batches
}

// batches hands requests of its own making to the mux, behind middleware that copies the request.
func batches() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok/{id}", ok)
	mux.HandleFunc("/cloned/{id}", ok)
	mux.HandleFunc("/batch", func(w http.ResponseWriter, r *http.Request) {
		for _, path := range []string{"/ok/1", "/cloned/2"} {
			part := r.Clone(r.Context())
			part.URL.Path = path
			mux.ServeHTTP(w, part)
		}
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cloned/alice" {
			mux.ServeHTTP(w, r.Clone(r.Context()))
			return
		}
		mux.ServeHTTP(w, r.WithContext(r.Context()))
	})
}
