// Command frameworks serves by frameworks that bring a router of their own, and counts requests by the pattern that each was given.
package main

import (
	"flag"
	"log"
	"net/http"
	"time"

	"sample/self"
)

// said is the header of a request in which a handler leaves its pattern: all copies of a request share it.
const said = "Pattern-Said"

func say(r *http.Request, pattern string) {
	r.Header[said] = []string{pattern}
}

// frameworks make the handlers that it can serve by, by name.
var frameworks = map[string]func() http.Handler{}

func main() {
	as := flag.String("as", "go-restful", "the framework")
	timed := flag.Bool("timed", false, "behind http.TimeoutHandler")
	flag.Parse()
	framework, known := frameworks[*as]
	if !known {
		log.Fatalf("there is no framework %q", *as)
	}
	handler := framework()
	if *timed {
		handler = http.TimeoutHandler(handler, time.Minute, "too late")
	}
	counter := self.NewCounter()
	counter.RouteOf = func(r *http.Request) string { return r.Header.Get(said) }
	self.Serve(counter.Wrap(handler), self.Options{Counter: counter})
}
