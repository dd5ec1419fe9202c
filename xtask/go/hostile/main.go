// Command hostile does on request what would harm a careless agent: each file is one kind of attack, and registers the paths at
// which it is asked for. /hello is an ordinary request.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
)

func main() {
	address := flag.String("listen", "127.0.0.1:0", "address to listen at")
	times := flag.Int("exec", 0, "execute itself so many times first")
	exit := flag.Bool("exit", false, "end at once")
	copies := flag.Bool("copy", false, "route copies of requests, as middleware makes them")
	flag.Parse()
	if *exit {
		return
	}
	if err := again(*times); err != nil {
		log.Fatal(err)
	}

	http.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("hello\n"))
	})
	l, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("{\"pid\":%d,\"http\":%q}\n", os.Getpid(), l.Addr().String())
	var handler http.Handler
	if *copies {
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.DefaultServeMux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), copies, true)))
		})
	}
	log.Fatal(http.Serve(l, handler))
}

// number is a query parameter, or what it is without one.
func number(r *http.Request, name string, without int) int {
	if n, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil {
		return n
	}
	return without
}
