package main

import (
	"net/http"
	"strings"
	"time"
)

func init() {
	programs["timeouts"] = func() http.Handler { return recovering(timeouts(named(""))) }
	programs["nested-timeouts"] = func() http.Handler {
		return recovering(http.TimeoutHandler(timeouts(named("")), time.Minute, "late"))
	}
	programs["goroutines"] = func() http.Handler {
		return recovering(elsewhere(copying(elsewhere(named("").ServeHTTP)).ServeHTTP))
	}
	programs["timeouts-below"] = func() http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("/plain/{name}", ok)
		mux.Handle("/below/", timeouts(named("/below")))
		mux.Handle("/", timeouts(named("")))
		return recovering(mux)
	}
}

// recovering answers where what it wraps panics.
func recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				http.Error(w, "panic", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// timeouts gives requests a deadline, which those for something slow do not meet.
func timeouts(next http.Handler) http.Handler {
	long := http.TimeoutHandler(next, time.Minute, "late")
	short := http.TimeoutHandler(next, 20*time.Millisecond, "late")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/slow/") {
			short.ServeHTTP(w, r)
			return
		}
		long.ServeHTTP(w, r)
	})
}

// named has routes with names in their paths, which nothing tells from words of a route.
func named(below string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(below+"/hello/{name}", ok)
	mux.HandleFunc(below+"/slow/{name}", func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		// Goes on after the client has its answer.
		time.Sleep(100 * time.Millisecond)
	})
	mux.HandleFunc(below+"/panics/{name}", func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	mux.HandleFunc(below+"/aborts/{name}", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	return mux
}
