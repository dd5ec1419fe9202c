// Command servers serves in all the ways that net/http has, and is its own client: asked to run at its port, it exchanges what its
// files describe and answers what a server has to have counted, as JSON.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
	"sort"
)

// request is what is counted of one: as the client knows it.
type request struct {
	Method string `json:"method"`
	Status int    `json:"status"`
	Route  string `json:"route"`
}

type counted struct {
	request
	Count int `json:"count"`
}

// exchanges are what is done, by name, in the order of the names; each returns what was asked.
var exchanges = map[string]func() []request{}

func run() []counted {
	counts := map[request]int{}
	names := []string{}
	for name := range exchanges {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, it := range exchanges[name]() {
			counts[it]++
		}
	}
	all := []counted{}
	for it, count := range counts {
		all = append(all, counted{it, count})
	}
	return all
}

// main answers without net/http, which would be counted.
func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	fmt.Printf("{\"pid\":%d,\"http\":%q}\n", os.Getpid(), l.Addr().String())
	for {
		c, err := l.Accept()
		must(err)
		_, err = c.Read(make([]byte, 4096))
		must(err)
		body, err := json.Marshal(run())
		must(err)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
		must(c.Close())
	}
}

func must(err error) {
	if err != nil {
		log.Panic(err)
	}
}
