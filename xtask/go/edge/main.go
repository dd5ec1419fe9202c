// Command edge holds the handlers that are hard to measure right: those that never write, panic, hijack, stream, time
// out, pass on, or make their stack grow. It counts its own requests exactly.
package main

import (
	"flag"
	"net/http"
	"runtime/debug"
	"time"

	"sample/self"
)

var gogc = flag.Int("gogc", 100, "percentage for the garbage collector; 1 collects all the time")

func main() {
	flag.Parse()
	debug.SetGCPercent(*gogc)

	mux := http.NewServeMux()
	for path, h := range map[string]http.HandlerFunc{
		"/ok":            ok,
		"/silent":        silent,
		"/sleep":         sleep,
		"/panic-before":  panicBefore,
		"/panic-after":   panicAfter,
		"/abort":         abort,
		"/goexit":        goexit,
		"/hijack":        hijack,
		"/ws":            websocket,
		"/early":         early,
		"/double-header": doubleHeader,
		"/sse":           sse,
		"/wait":          wait,
		"/body":          body,
		"/big":           big,
		"/deep":          deep,
		"/drop-code":     dropCode,
		"/proxy":         proxy,
		"/timeout":       http.TimeoutHandler(http.HandlerFunc(sleep), 50*time.Millisecond, "too slow\n").ServeHTTP,
	} {
		mux.HandleFunc(path, self.Route(path, h))
	}
	counter := self.NewCounter()
	self.Serve(counter.Wrap(mux), self.Options{Counter: counter})
}
