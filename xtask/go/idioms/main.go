// Command idioms routes requests as real services do: by muxes that are made anew while it runs, by
// patterns that redirect, by routers behind a mux, behind middleware that changes or copies the request.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"
)

// current is the *http.ServeMux that requests go to; none has a literal for a pattern.
var current atomic.Value

func ok(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok\n"))
}

// more adds the handlers of this program's other files.
var more []func(*http.ServeMux)

// reload makes a mux with one pattern of this name, as a service does whose configuration has changed, and frees the last one.
func reload(name string) {
	mux := http.NewServeMux()
	mux.HandleFunc(fmt.Sprintf("/%s/{id}", name), ok)
	current.Store(mux)
	runtime.GC()
	runtime.GC()
}

// programs are the handlers that it can serve by, by name.
var programs = map[string]func() http.Handler{"reloading": reloading, "guarded": guarded}

func reloading() http.Handler {
	reload("first")
	mux := http.NewServeMux()
	mux.HandleFunc("/users/{id}/", ok)
	mux.HandleFunc("/about", ok)
	for _, add := range more {
		add(mux)
	}
	mux.HandleFunc("/reload", func(w http.ResponseWriter, r *http.Request) {
		reload(r.URL.Query().Get("name"))
		ok(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.Path) > 6 && r.URL.Path[:6] == "/from-" {
			current.Load().(*http.ServeMux).ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// guarded is behind middleware that lets nobody in but to /about.
func guarded() http.Handler {
	mux := reloading()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/about" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address to listen at")
	as := flag.String("as", "reloading", "the program to be")
	flag.Parse()
	program, found := programs[*as]
	if !found {
		log.Fatalf("there is no program %q", *as)
	}
	l, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	handler := program()
	fmt.Printf("{\"pid\":%d,\"http\":%q}\n", os.Getpid(), l.Addr().String())
	log.Fatal(serve(l, handler))
}
