package main

import (
	"fmt"
	"net/http"
)

// A program with many routes that answer with many statuses: its part of /metrics is megabytes long. /widen asks each of its
// routes for as many statuses as it is told.
const wideRoutes = 20

func init() {
	for i := 0; i < wideRoutes; i++ {
		http.HandleFunc(fmt.Sprintf("/wide/of-some-length-so-that-each-line-is-long/%02d", i), func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(number(r, "status", 200))
		})
	}
	http.HandleFunc("/widen", func(w http.ResponseWriter, r *http.Request) {
		asked := 0
		for i := 0; i < wideRoutes; i++ {
			for status := 0; status < number(r, "statuses", 1); status++ {
				url := fmt.Sprintf("http://%s/wide/of-some-length-so-that-each-line-is-long/%02d?status=%d", r.Host, i, 200+status)
				answer, err := http.Get(url)
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
				_ = answer.Body.Close()
				asked++
			}
		}
		_, _ = fmt.Fprintln(w, asked)
	})
}
