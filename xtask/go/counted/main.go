// Command counted is a service with client_golang's own instrumentation compiled in: what promhttp counts is held
// against what the agent counts from outside.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"

	"sample/self"
)

// buckets are the agent's for HTTP durations.
var buckets = []float64{
	0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025,
	0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
}

type service struct {
	mux      *http.ServeMux
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	active   prometheus.Gauge
}

func main() {
	flag.Parse()
	s := &service{
		mux:      http.NewServeMux(),
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "http_requests_total",
			Help: "Requests served.",
		}, []string{"code", "method", "route"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "http_request_duration_seconds",
			Help:    "Duration of requests.",
			Buckets: buckets,
		}, []string{"code", "method", "route"}),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "http_requests_in_flight",
			Help: "Requests under way.",
		}),
	}
	s.registry.MustRegister(s.requests, s.duration, s.active, collectors.NewGoCollector(
		collectors.WithGoCollectorRuntimeMetrics(collectors.MetricsAll)),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.routes()
	self.Serve(promhttp.InstrumentHandlerInFlight(s.active, s.mux), self.Options{
		Pages: map[string]self.Page{"/metrics": s.metrics},
	})
}

// handle registers a handler under a pattern whose path is its route.
func (s *service) handle(pattern string, h http.HandlerFunc) {
	route := pattern[strings.IndexByte(pattern, ' ')+1:]
	extra := promhttp.WithExtraMethods("PURGE")
	label := prometheus.Labels{"route": route}
	counted := promhttp.InstrumentHandlerCounter(s.requests.MustCurryWith(label), h, extra)
	s.mux.Handle(pattern, promhttp.InstrumentHandlerDuration(s.duration.MustCurryWith(label), counted, extra))
}

func (s *service) routes() {
	s.handle("GET /hello", text(http.StatusOK, "hello\n"))
	s.handle("POST /items", text(http.StatusCreated, "created\n"))
	s.handle("GET /items/{id}", item)
	s.handle("PUT /items/{id}", item)
	s.handle("PATCH /items/{id}", item)
	s.handle("PURGE /items/{id}", item)
	s.handle("DELETE /items/{id}", text(http.StatusNoContent, ""))
	s.handle("OPTIONS /items/{id}", text(http.StatusNoContent, ""))
	s.handle("GET /users/{user}/orders/{order}", text(http.StatusOK, "order\n"))
	s.handle("GET /old", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/hello", http.StatusMovedPermanently)
	})
	s.handle("GET /fail", text(http.StatusInternalServerError, "failed\n"))
	s.handle("GET /silent", func(http.ResponseWriter, *http.Request) {})
	s.handle("GET /sleep", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.ParseFloat(r.URL.Query().Get("ms"), 64)
		time.Sleep(time.Duration(ms * float64(time.Millisecond)))
		fmt.Fprintln(w, "slept")
	})
	s.handle("GET /work", work)
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// item answers for one item; item 0 does not exist.
func item(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if id == "0" {
		http.NotFound(w, r)
		return
	}
	fmt.Fprintf(w, "%s item %s\n", r.Method, id)
}

// work burns CPU for the microseconds that ?us= asks for.
func work(w http.ResponseWriter, r *http.Request) {
	us, _ := strconv.Atoi(r.URL.Query().Get("us"))
	var n uint64
	for end := time.Now().Add(time.Duration(us) * time.Microsecond); time.Now().Before(end); n++ {
	}
	fmt.Fprintln(w, n)
}

func (s *service) metrics() (string, []byte) {
	families, err := s.registry.Gather()
	if err != nil {
		log.Fatal(err)
	}
	format := expfmt.NewFormat(expfmt.TypeTextPlain)
	var out bytes.Buffer
	encoder := expfmt.NewEncoder(&out, format)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			log.Fatal(err)
		}
	}
	return string(format), out.Bytes()
}
