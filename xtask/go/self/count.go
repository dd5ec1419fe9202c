// Package self is what the sample services share: exact counts of their own requests, to hold the agent's against, and
// listening for HTTP/1.1, HTTP/2 over TLS and HTTP/2 in the clear.
package self

import (
	"bufio"
	"encoding/json"
	"net"
	"net/http"
	"sort"
	"sync"
	"time"
)

// Outcomes of a handler.
const (
	returned = "returned"
	panicked = "panicked"
	aborted  = "aborted"
	hijacked = "hijacked"
	exited   = "exited" // runtime.Goexit
)

type key struct {
	method  string
	status  int
	route   string
	outcome string
}

type sum struct {
	count   uint64
	seconds float64
}

// Counter counts requests in an outermost handler.
type Counter struct {
	// RouteOf tells the route of a request that has been handled, where no Route has; nil: nothing does.
	RouteOf func(*http.Request) string

	mu     sync.Mutex
	sums   map[key]*sum
	active int
}

// NewCounter returns a counter that has counted nothing.
func NewCounter() *Counter {
	return &Counter{sums: map[key]*sum{}}
}

// Wrap counts the requests that h handles. It has to be the outermost handler. It does not copy the request, so that
// what a ServeMux writes to it stays visible to the server.
func (c *Counter) Wrap(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w}
		method := r.Method
		start := time.Now()
		c.begin()
		outcome := exited
		defer func() {
			if rec.route == "" && c.RouteOf != nil {
				rec.route = c.RouteOf(r)
			}
			c.end(key{method, rec.final(outcome), rec.route, rec.outcome(outcome)}, time.Since(start))
		}()
		defer func() {
			if v := recover(); v != nil {
				outcome = panicked
				if v == http.ErrAbortHandler {
					outcome = aborted
				}
				panic(v)
			}
		}()
		h.ServeHTTP(rec, r)
		outcome = returned
	})
}

// Route names the route of the requests that h handles.
func Route(route string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if rec, ok := w.(*recorder); ok {
			rec.route = route
		}
		h(w, r)
	}
}

func (c *Counter) begin() {
	c.mu.Lock()
	c.active++
	c.mu.Unlock()
}

func (c *Counter) end(k key, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active--
	s := c.sums[k]
	if s == nil {
		s = &sum{}
		c.sums[k] = s
	}
	s.count++
	s.seconds += d.Seconds()
}

type entry struct {
	Method  string  `json:"method"`
	Status  int     `json:"status"`
	Route   string  `json:"route"`
	Outcome string  `json:"outcome"`
	Count   uint64  `json:"count"`
	Seconds float64 `json:"seconds"`
}

// JSON returns the counts so far, in a stable order.
func (c *Counter) JSON() []byte {
	c.mu.Lock()
	entries := []entry{}
	for k, s := range c.sums {
		entries = append(entries, entry{k.method, k.status, k.route, k.outcome, s.count, s.seconds})
	}
	c.mu.Unlock()
	sort.Slice(entries, func(i, j int) bool {
		a, b := entries[i], entries[j]
		if a.Route != b.Route {
			return a.Route < b.Route
		}
		if a.Method != b.Method {
			return a.Method < b.Method
		}
		if a.Status != b.Status {
			return a.Status < b.Status
		}
		return a.Outcome < b.Outcome
	})
	text, err := json.Marshal(entries)
	if err != nil {
		panic(err)
	}
	return append(text, '\n')
}

// Active returns the number of requests under way.
func (c *Counter) Active() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

// Reset forgets all counts.
func (c *Counter) Reset() {
	c.mu.Lock()
	c.sums = map[key]*sum{}
	c.mu.Unlock()
}

// recorder remembers what a handler did with the response.
type recorder struct {
	http.ResponseWriter
	status   int
	route    string
	hijacked bool
}

// final is the status that the client sees.
func (r *recorder) final(outcome string) int {
	if r.status == 0 && outcome == returned && !r.hijacked {
		return http.StatusOK
	}
	return r.status
}

func (r *recorder) outcome(outcome string) string {
	if r.hijacked && outcome == returned {
		return hijacked
	}
	return outcome
}

// WriteHeader implements http.ResponseWriter. Informational statuses before Go 1.19 were final; nobody sends any there.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Flush implements http.Flusher, which sends the header.
func (r *recorder) Flush() {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	r.ResponseWriter.(http.Flusher).Flush()
}

// Hijack implements http.Hijacker.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := r.ResponseWriter.(http.Hijacker).Hijack()
	if err == nil {
		r.hijacked = true
	}
	return conn, rw, err
}

// Unwrap lets http.ResponseController reach the server's own writer.
func (r *recorder) Unwrap() http.ResponseWriter {
	return r.ResponseWriter
}
