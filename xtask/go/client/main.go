// Command client makes exchanges of every kind with servers of its own, and counts them where http.Client makes them: what it was
// asked to, over HTTP/1.1 or HTTP/2. It begins once its admin page /_go is asked for, and says at /_client what came of it.
package main

import (
	"encoding/json"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"sample/self"
)

var (
	total       = flag.Int("n", 1000, "calls to make")
	concurrency = flag.Int("c", 16, "goroutines that make them")
	useHTTP2    = flag.Bool("http2", false, "over HTTP/2")
	mode        = flag.String("mode", "", "calls of one kind: direct, forged, hosts, nested")
	panics      = flag.Bool("panics", false, "have some exchanges end in a panic of the RoundTripper")
)

func main() {
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/items", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	mux.HandleFunc("/fail", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("/sleep", sleep)
	mux.Handle("/old", http.RedirectHandler("/ok", http.StatusMovedPermanently))
	mux.Handle("/kept", http.RedirectHandler("/items", http.StatusTemporaryRedirect))

	server := listen(mux)
	transport := server.Client().Transport.(*http.Transport)
	transport.MaxIdleConnsPerHost = *concurrency
	tally := newTally()
	calls := &calls{base: server.URL, refused: closedPort(), tally: tally, counted: counted{transport, tally}}
	var once sync.Once
	begin := func() (string, []byte) {
		once.Do(func() { go calls.all() })
		return "text/plain", []byte("ok\n")
	}
	self.Serve(mux, self.Options{Pages: map[string]self.Page{"/_go": begin, "/_client": calls.page}})
}

// sleep answers after a while, or once the client has gone.
func sleep(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(time.Second):
	case <-r.Context().Done():
	}
}

// listen serves what is called.
func listen(h http.Handler) *httptest.Server {
	server := httptest.NewUnstartedServer(h)
	if !*useHTTP2 {
		server.Start()
		return server
	}
	server.EnableHTTP2 = true
	server.StartTLS()
	return server
}

// closedPort returns an address that nobody listens at.
func closedPort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// page says what the calls came to, and whether all have been made.
func (c *calls) page() (string, []byte) {
	text, err := json.Marshal(map[string]interface{}{"done": c.done.isSet(), "counts": c.tally.entries()})
	if err != nil {
		panic(err)
	}
	return "application/json", append(text, '\n')
}
