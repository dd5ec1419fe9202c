// Command hostile does on request what would harm a careless agent: each file is one kind of attack, and registers the paths at
// which it is asked for. /hello is an ordinary request.
package main

import (
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
	log.Fatal(http.Serve(l, nil))
}

// number is a query parameter, or what it is without one.
func number(r *http.Request, name string, without int) int {
	if n, err := strconv.Atoi(r.URL.Query().Get(name)); err == nil {
		return n
	}
	return without
}
