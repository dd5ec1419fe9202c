package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"sync"
)

// Requests in flight without end: /hold?n=N begins N and keeps them until /release, which keeps their connections.
func init() {
	var held []net.Conn
	release := make(chan struct{})
	http.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		n := number(r, "n", 1)
		var in sync.WaitGroup
		in.Add(n)
		connect := within(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { in.Done(); <-release }))
		for i := 0; i < n; i++ {
			c := connect()
			fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			held = append(held, c)
		}
		in.Wait()
	})
	http.HandleFunc("/release", func(w http.ResponseWriter, r *http.Request) {
		close(release)
		for _, c := range held {
			if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		}
	})
}
