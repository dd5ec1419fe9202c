// Command demo is a small shop as many a team runs it: orders, a search, a slow report, and now and then an error. It
// holds no instrumentation whatever.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address to listen at")
	flag.Parse()

	s := newShop()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders", s.list)
	mux.HandleFunc("POST /orders", s.create)
	mux.HandleFunc("GET /orders/{id}", s.get)
	mux.HandleFunc("DELETE /orders/{id}", s.cancel)
	mux.HandleFunc("GET /search", s.search)
	mux.HandleFunc("GET /report", s.report)
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})

	l, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		if err := srv.Serve(l); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()
	fmt.Printf("{\"pid\":%d,\"http\":%q}\n", os.Getpid(), l.Addr().String())
	<-stop
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = srv.Shutdown(ctx)
}

// think takes as long as a database might: mostly about the median, sometimes much longer.
func think(median time.Duration) {
	d := time.Duration(float64(median) * (0.5 + rand.ExpFloat64()*0.7))
	if rand.Intn(200) == 0 {
		d *= 10
	}
	time.Sleep(d)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		log.Print(err)
	}
}

func problem(w http.ResponseWriter, status int, detail string) {
	answer(w, status, map[string]string{"error": detail})
}
