// Command xnet serves HTTP/2 by golang.org/x/net/http2 rather than by the copy of it in net/http: over TLS by
// ConfigureServer, in the clear by h2c.NewHandler.
package main

import (
	"flag"
	"fmt"
	"net/http"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c"

	"sample/self"
)

func main() {
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", self.Route("/hello", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello by %s\n", r.Proto)
	}))
	mux.HandleFunc("GET /items/{id}", self.Route("/items/{id}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "0" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, "item %s\n", r.PathValue("id"))
	}))
	mux.HandleFunc("POST /items", self.Route("/items", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusCreated)
	}))
	mux.HandleFunc("/silent", self.Route("/silent", func(http.ResponseWriter, *http.Request) {}))
	mux.HandleFunc("/fail", self.Route("/fail", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "failed", http.StatusInternalServerError)
	}))
	mux.HandleFunc("/panic", self.Route("/panic", func(http.ResponseWriter, *http.Request) { panic("on purpose") }))
	counter := self.NewCounter()
	self.Serve(counter.Wrap(mux), self.Options{
		Counter: counter,
		ConfigureTLS: func(srv *http.Server) error {
			return http2.ConfigureServer(srv, &http2.Server{})
		},
		ConfigureH2C: func(srv *http.Server) error {
			// The outer server sees but one request a connection, which h2c.NewHandler hijacks.
			srv.Handler = h2c.NewHandler(srv.Handler, &http2.Server{})
			return nil
		},
	})
}
