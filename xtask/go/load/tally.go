package main

import (
	"math/bits"
	"sort"
	"time"
)

// Durations are counted in log-linear buckets of less than 1% width, so that memory does not grow with the requests.
const (
	subBits    = 7
	subBuckets = 1 << subBits
	buckets    = 40 * subBuckets
)

type kind struct {
	request *request
	status  int
}

type sum struct {
	count uint64
	total time.Duration
}

// tally is what one worker counted.
type tally struct {
	sums      map[kind]*sum
	durations [buckets]uint32
	longest   time.Duration
	errors    uint64
	samples   []string
}

func newTally() *tally {
	return &tally{sums: map[kind]*sum{}}
}

func (t *tally) add(r *request, status int, d time.Duration, problem string) {
	k := kind{r, status}
	s := t.sums[k]
	if s == nil {
		s = &sum{}
		t.sums[k] = s
	}
	s.count++
	s.total += d
	t.durations[bucket(d)]++
	t.longest = max(t.longest, d)
	if problem != "" {
		t.errors++
		if len(t.samples) < 3 {
			t.samples = append(t.samples, problem)
		}
	}
}

func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-subBits-1, 0)
	return min(shift*subBuckets+int(v>>shift), buckets-1)
}

// middle is the duration in the middle of a bucket.
func middle(bucket int) time.Duration {
	shift := max(bucket/subBuckets-1, 0)
	low := uint64(bucket-shift*subBuckets) << shift
	return time.Duration(low + (uint64(1)<<shift)/2)
}

type report struct {
	Total   uint64   `json:"total"`
	Errors  uint64   `json:"errors"`
	Samples []string `json:"error_samples"`
	Elapsed float64  `json:"elapsed_seconds"`
	Rate    float64  `json:"rate"`
	Seconds float64  `json:"seconds"`
	P50     float64  `json:"p50"`
	P90     float64  `json:"p90"`
	P99     float64  `json:"p99"`
	Max     float64  `json:"max"`
	Counts  []count  `json:"counts"`
}

type count struct {
	Method  string  `json:"method"`
	Status  int     `json:"status"`
	Route   string  `json:"route"`
	Count   uint64  `json:"count"`
	Seconds float64 `json:"seconds"`
}

type label struct {
	method string
	status int
	route  string
}

func newReport(tallies []*tally, elapsed time.Duration) *report {
	r := &report{Elapsed: elapsed.Seconds(), Samples: []string{}, Counts: []count{}}
	var durations [buckets]uint64
	var longest time.Duration
	sums := map[label]*count{}
	for _, t := range tallies {
		for k, s := range t.sums {
			l := label{k.request.method, k.status, k.request.route}
			c := sums[l]
			if c == nil {
				c = &count{Method: l.method, Status: l.status, Route: l.route}
				sums[l] = c
			}
			c.Count += s.count
			c.Seconds += s.total.Seconds()
			r.Total += s.count
			r.Seconds += s.total.Seconds()
		}
		for i, n := range t.durations {
			durations[i] += uint64(n)
		}
		longest = max(longest, t.longest)
		r.Errors += t.errors
		if len(r.Samples) < 10 {
			r.Samples = append(r.Samples, t.samples...)
		}
	}
	for _, c := range sums {
		r.Counts = append(r.Counts, *c)
	}
	sort.Slice(r.Counts, func(i, j int) bool {
		a, b := r.Counts[i], r.Counts[j]
		if a.Route != b.Route {
			return a.Route < b.Route
		}
		if a.Method != b.Method {
			return a.Method < b.Method
		}
		return a.Status < b.Status
	})
	quantile := func(q float64) float64 {
		rank, seen := uint64(q*float64(r.Total)), uint64(0)
		for i, n := range durations {
			if seen += n; seen > rank {
				return min(middle(i), longest).Seconds()
			}
		}
		return longest.Seconds()
	}
	r.P50, r.P90, r.P99, r.Max = quantile(0.5), quantile(0.9), quantile(0.99), longest.Seconds()
	r.Rate = float64(r.Total) / elapsed.Seconds()
	return r
}
