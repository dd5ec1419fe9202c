package main

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

type key struct {
	method    string
	status    int
	host      string
	errorType string
}

type sum struct {
	count   uint64
	seconds float64
}

// tally counts exchanges.
type tally struct {
	mu   sync.Mutex
	sums map[key]*sum
}

func newTally() *tally { return &tally{sums: map[key]*sum{}} }

func (t *tally) add(k key, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sums[k]
	if s == nil {
		s = &sum{}
		t.sums[k] = s
	}
	s.count++
	s.seconds += took.Seconds()
}

type entry struct {
	Method    string  `json:"method"`
	Status    int     `json:"status"`
	Host      string  `json:"host"`
	ErrorType string  `json:"error_type"`
	Count     uint64  `json:"count"`
	Seconds   float64 `json:"seconds"`
}

func (t *tally) entries() []entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries := []entry{}
	for k, s := range t.sums {
		entries = append(entries, entry{k.method, k.status, k.host, k.errorType, s.count, s.seconds})
	}
	return entries
}

// counted is the RoundTripper that http.Client calls, or whose caller does nothing behind it.
type counted struct {
	next  http.RoundTripper
	tally *tally
}

func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	k := key{method: r.Method, host: r.URL.Host}
	if k.method == "" {
		k.method = "GET"
	}
	start := time.Now()
	response, err := c.next.RoundTrip(r)
	if err != nil {
		k.errorType = fmt.Sprintf("%T", err)
	} else {
		k.status = response.StatusCode
	}
	c.tally.add(k, time.Since(start))
	return response, err
}
