// Command load sends requests at full speed or at a given rate over HTTP/1.1 (pipelined too), HTTP/2 over TLS or HTTP/2
// in the clear, verifies each answer, and prints one JSON report of what it counted and how long it took.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type config struct {
	mode     string
	address  string
	tls      bool
	total    int64
	duration time.Duration
	conns    int
	streams  int
	depth    int
	rate     float64
	timeout  time.Duration
	mix      *mix
	// certificates are shown to the service, and headers sent with each request of the h2 modes.
	certificates []tls.Certificate
	headers      http.Header
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("load: ")
	c := config{headers: http.Header{}}
	var lines mixFlag
	flag.StringVar(&c.mode, "mode", "h1", "h1, h1-pipelined, h2 (over TLS) or h2c")
	flag.StringVar(&c.address, "address", "", "host:port of the service")
	flag.BoolVar(&c.tls, "tls", false, "TLS for the h1 modes; certificates are not verified")
	flag.Int64Var(&c.total, "n", 0, "number of requests in all")
	flag.DurationVar(&c.duration, "duration", 0, "how long to send, if -n is not given")
	flag.IntVar(&c.conns, "c", 64, "connections")
	flag.IntVar(&c.streams, "s", 1, "concurrent streams on each HTTP/2 connection")
	flag.IntVar(&c.depth, "depth", 8, "requests sent ahead on a pipelined connection")
	flag.Float64Var(&c.rate, "rate", 0, "requests a second in all; 0 for full speed")
	flag.DurationVar(&c.timeout, "timeout", 30*time.Second, "longest wait for an answer")
	flag.Var(&lines, "mix", "a line `METHOD PATH STATUS ROUTE WEIGHT [body=TEXT] [send=TEXT]`, may be repeated; "+
		"{n} in PATH becomes a running number, STATUS 0 expects no answer, body= is what the answer must hold, "+
		"send= is sent")
	certificate := flag.String("cert", "", "client certificate for the h2 mode (PEM), with -key")
	key := flag.String("key", "", "its key")
	flag.Func("header", "a header `NAME: VALUE` of every request of the h2 modes, may be repeated", func(line string) error {
		name, value, found := strings.Cut(line, ":")
		if !found {
			return fmt.Errorf("no colon in it")
		}
		c.headers.Add(strings.TrimSpace(name), strings.TrimSpace(value))
		return nil
	})
	mixFile := flag.String("mix-file", "", "file of such lines")
	procs := flag.Int("procs", 0, "GOMAXPROCS; 0 leaves it")
	flag.Parse()
	if *procs > 0 {
		runtime.GOMAXPROCS(*procs)
	}
	debug.SetGCPercent(400)
	if c.address == "" || flag.NArg() > 0 {
		log.Fatal("-address is needed, and nothing but flags")
	}
	if c.total <= 0 && c.duration <= 0 {
		log.Fatal("-n or -duration is needed")
	}
	var err error
	if c.mix, err = readMix(lines, *mixFile); err != nil {
		log.Fatal(err)
	}
	if *certificate != "" {
		pair, err := tls.LoadX509KeyPair(*certificate, *key)
		if err != nil {
			log.Fatal(err)
		}
		c.certificates = append(c.certificates, pair)
	}
	report, err := run(c)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		log.Fatal(err)
	}
}

// pacer hands out the numbers of the requests, each when it is due.
type pacer struct {
	next  atomic.Int64
	total int64
	rate  float64
	start time.Time
	ctx   context.Context
}

// take returns the next request's number, or false when there are no more.
func (p *pacer) take() (int64, bool) {
	if p.ctx.Err() != nil {
		return 0, false
	}
	n := p.next.Add(1) - 1
	if p.total > 0 && n >= p.total {
		return 0, false
	}
	if p.rate > 0 {
		due := p.start.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-p.ctx.Done():
				return 0, false
			}
		}
	}
	return n, true
}

// worker sends requests until the pacer has no more.
type worker interface {
	run(p *pacer, t *tally)
}

func run(c config) (*report, error) {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if c.total <= 0 {
		ctx, cancel = context.WithTimeout(ctx, c.duration)
		defer cancel()
	}
	var workers []worker
	switch c.mode {
	case "h1":
		workers = newH1(c, 1)
	case "h1-pipelined":
		workers = newH1(c, c.depth)
	case "h2", "h2c":
		workers = newH2(c)
	default:
		return nil, fmt.Errorf("no mode %q", c.mode)
	}
	p := &pacer{total: c.total, rate: c.rate, start: time.Now(), ctx: ctx}
	tallies := make([]*tally, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		tallies[i] = newTally()
		wg.Add(1)
		go func() {
			defer wg.Done()
			w.run(p, tallies[i])
		}()
	}
	wg.Wait()
	return newReport(tallies, time.Since(p.start)), nil
}
