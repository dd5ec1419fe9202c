package main

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
)

// Series without end: /fill?routes=R&statuses=S&from=F serves a request of each of S statuses from F on, on each of R routes.
func init() {
	http.HandleFunc("/fill", func(w http.ResponseWriter, r *http.Request) {
		routes, statuses, from := number(r, "routes", 1), number(r, "statuses", 1), number(r, "from", 200)
		c := within(answering(routes, func() {}))()
		defer c.Close()
		answers := bufio.NewReader(c)
		for s := from; s < from+statuses; s++ {
			for i := 0; i < routes; i++ {
				fmt.Fprintf(c, "HEAD /r%d HTTP/1.1\r\nHost: x\r\nStatus: %d\r\n\r\n", i, s)
				answer, err := http.ReadResponse(answers, &http.Request{Method: "HEAD"})
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
				answer.Body.Close()
			}
		}
	})
}

// answering has routes /r0, /r1 and so on, which answer with the status that the request asks for once before has returned.
func answering(routes int, before func()) http.Handler {
	mux := http.NewServeMux()
	for i := 0; i < routes; i++ {
		mux.HandleFunc(fmt.Sprintf("/r%d", i), func(w http.ResponseWriter, r *http.Request) {
			status, _ := strconv.Atoi(r.Header.Get("Status"))
			before()
			w.WriteHeader(status)
			if r.Header.Get("Panic") != "" {
				panic(http.ErrAbortHandler)
			}
		})
	}
	return mux
}
