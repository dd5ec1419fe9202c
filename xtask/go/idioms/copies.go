package main

import "net/http"

func init() {
	programs["limited"] = func() http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("/hello/{name}", ok)
		return http.MaxBytesHandler(http.AllowQuerySemicolons(mux), 1<<20)
	}
}
