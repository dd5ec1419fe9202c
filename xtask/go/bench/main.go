// Command bench is the services that the benchmarks measure: one that only answers, an API of twenty routes, one that works
// for a millisecond of CPU time, one that asks another server, one among a thousand goroutines that keep the scheduler busy, and
// one that serves itself.
package main

import (
	"flag"
	"log"
	"net/http"

	"sample/self"
)

func main() {
	kind := flag.String("kind", "hello", "hello, api, calls, work1ms, pingpong or inside")
	flag.Parse()
	mux := http.NewServeMux()
	switch *kind {
	case "hello":
		mux.HandleFunc("/hello", hello)
	case "api":
		api(mux)
	case "calls":
		mux.HandleFunc("/hello", calls())
	case "work1ms":
		mux.HandleFunc("/hello", work1ms())
	case "pingpong":
		pingpong(1000)
		mux.HandleFunc("/hello", hello)
	case "inside":
		inside(mux)
	default:
		log.Fatalf("no kind %q", *kind)
	}
	self.Serve(mux, self.Options{})
}

func hello(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("hello\n"))
}
