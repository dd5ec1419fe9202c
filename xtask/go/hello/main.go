// Command hello answers "hello" and does nothing else: the smallest service there is, to measure what a probe costs.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
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

	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("hello\n"))
	})
	l, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 30 * time.Second}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go execInPlace()
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

// execInPlace replaces this process's program, on SIGUSR1, by the one that SAMPLE_EXEC names, or by the same once more.
func execInPlace() {
	again := make(chan os.Signal, 1)
	signal.Notify(again, syscall.SIGUSR1)
	<-again
	program := os.Getenv("SAMPLE_EXEC")
	if program == "" {
		program = os.Args[0]
	}
	log.Fatal(syscall.Exec(program, os.Args, os.Environ()))
}
