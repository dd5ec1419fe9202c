// Command waits blocks in known ways, stops the world when asked, and counts both itself: what a measurement of waits from
// outside is held against.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
)

func main() {
	parks := flag.Int("parks", 0, "pass tokens between goroutines, this many parks a second in all")
	flag.Parse()
	l, port := listen()
	if *parks > 0 {
		go paced(*parks)
	}
	fmt.Printf("{\"pid\":%d,\"http\":\"127.0.0.1:%d\"}\n", os.Getpid(), port)
	for {
		answer(l)
	}
}

// answer serves one request: /start and /stop the blocking loops, /counts of them, /gc?n= cycles forced, /parked so far.
func answer(l int) {
	conn, path := accept(l)
	if conn < 0 {
		return
	}
	var body interface{}
	switch {
	case path == "/start":
		body = start()
	case strings.HasPrefix(path, "/start?hot"):
		body = hot()
	case path == "/stop":
		body = stop()
	case path == "/counts":
		body = counts()
	case path == "/parked":
		body = parked()
	case strings.HasPrefix(path, "/gc?n="):
		n, err := strconv.Atoi(strings.TrimPrefix(path, "/gc?n="))
		if err != nil {
			log.Fatal(err)
		}
		body = collect(n)
	}
	text, err := json.Marshal(body)
	if err != nil {
		log.Fatal(err)
	}
	reply(conn, text)
}
