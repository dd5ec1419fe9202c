// Command grpc is a gRPC server and its own client: it makes calls of every kind once its admin page /_go is asked for, and says at
// /_grpc what its handlers returned and what its callers saw. It builds with grpc 1.40 and everything later.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"sample/self"
)

var (
	total       = flag.Int("n", 1000, "calls to make")
	concurrency = flag.Int("c", 32, "goroutines that make them")
	workers     = flag.Int("workers", 0, "goroutines of the server that serve one call after another")
	handler     = flag.Bool("handler", false, "serve by net/http and (*grpc.Server).ServeHTTP")
	mode        = flag.String("mode", "", "calls of one kind: kills, methods, held, apart")
)

func main() {
	flag.Parse()
	tally := newTally()
	calls := &calls{tally: tally, refused: closedPort(), stopped: make(chan struct{})}
	calls.address, calls.secure = listen(tally)
	var once sync.Once
	begin := func() (string, []byte) {
		once.Do(func() { go calls.all() })
		return "text/plain", []byte("ok\n")
	}
	hold := func() (string, []byte) { return "text/plain", calls.hold() }
	release := func() (string, []byte) {
		close(calls.stopped)
		return "text/plain", []byte("ok\n")
	}
	pages := map[string]self.Page{"/_go": begin, "/_hold": hold, "/_release": release, "/_grpc": calls.page}
	self.Serve(http.NewServeMux(), self.Options{Pages: pages})
}

// listen serves what is called, and returns how it is dialled.
func listen(t *tally) (string, grpc.DialOption) {
	options := []grpc.ServerOption{grpc.UnaryInterceptor(t.unary), grpc.StreamInterceptor(t.stream), grpc.StatsHandler(unheard{t})}
	if *workers > 0 {
		options = append(options, grpc.NumStreamWorkers(uint32(*workers)))
	}
	server := grpc.NewServer(options...)
	server.RegisterService(&echo, nil)
	if *handler {
		s := httptest.NewUnstartedServer(server)
		s.EnableHTTP2 = true
		s.StartTLS()
		tls := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
		return s.Listener.Addr().String(), grpc.WithTransportCredentials(tls)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() { _ = server.Serve(l) }()
	return l.Addr().String(), grpc.WithInsecure()
}

// closedPort returns an address that nobody listens at.
func closedPort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// page says what the calls came to, and whether all have been made.
func (c *calls) page() (string, []byte) {
	said := map[string]interface{}{
		"done":    c.done.isSet(),
		"address": c.address,
		"server":  c.tally.server.entries(),
		"client":  c.tally.client.entries(),
	}
	text, err := json.Marshal(said)
	if err != nil {
		panic(err)
	}
	return "application/json", append(text, '\n')
}
