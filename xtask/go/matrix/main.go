// Command matrix answers with every kind of method, status and route, and counts its own requests exactly. It is built
// with every Go version from 1.17 on; routes.go and routes_old.go hold what differs.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"sample/self"
)

var copyRequest = flag.Bool("copy-request", false, "replace the request before routing, as middlewares do")

func main() {
	flag.Parse()
	mux := http.NewServeMux()
	routes(mux)
	var h http.Handler = mux
	if *copyRequest {
		h = copying(mux)
	}
	counter := self.NewCounter()
	self.Serve(counter.Wrap(h), self.Options{Counter: counter})
}

type contextKey struct{}

func copying(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, 1)))
	})
}

func ok(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write([]byte("ok\n"))
}

func implicit(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("implicit\n"))
}

func empty(http.ResponseWriter, *http.Request) {}

func old(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "/ok", http.StatusMovedPermanently)
}

func fail(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "failed", http.StatusInternalServerError)
}

// status answers with the status that the path names.
func status(w http.ResponseWriter, text string) {
	code, err := strconv.Atoi(text)
	if err != nil || code < 200 || code > 999 {
		http.Error(w, "no such status", http.StatusBadRequest)
		return
	}
	w.WriteHeader(code)
}

func sleep(w http.ResponseWriter, r *http.Request) {
	ms, _ := strconv.Atoi(r.URL.Query().Get("ms"))
	time.Sleep(time.Duration(ms) * time.Millisecond)
	fmt.Fprintf(w, "slept %d ms\n", ms)
}

func create(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write([]byte("created\n"))
}

// item answers for one item; item 0 does not exist.
func item(w http.ResponseWriter, r *http.Request, id string) {
	if id == "0" {
		http.NotFound(w, r)
		return
	}
	switch r.Method {
	case http.MethodDelete, http.MethodOptions:
		w.WriteHeader(http.StatusNoContent)
	default:
		fmt.Fprintf(w, "%s item %s\n", r.Method, id)
	}
}

func order(w http.ResponseWriter, user, id string) {
	fmt.Fprintf(w, "order %s of %s\n", id, user)
}
