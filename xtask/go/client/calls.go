package main

import (
	"context"
	"io"
	"io/ioutil"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// calls makes calls.
type calls struct {
	base    string
	refused string
	counted counted
	tally   *tally
	next    int64
	done    flagged
}

type flagged struct{ set int32 }

func (f *flagged) isSet() bool { return atomic.LoadInt32(&f.set) == 1 }

// all makes them, and says when the last is over.
func (c *calls) all() {
	var group sync.WaitGroup
	for i := 0; i < *concurrency; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				n := atomic.AddInt64(&c.next, 1)
				if n > int64(*total) {
					return
				}
				c.one(int(n))
			}
		}()
	}
	group.Wait()
	atomic.StoreInt32(&c.done.set, 1)
}

// one makes the call with this number.
func (c *calls) one(n int) {
	if c.special(n) {
		return
	}
	client := &http.Client{Transport: c.counted}
	switch n % 20 {
	case 1:
		c.call(client, "HEAD", "/ok", "")
	case 2:
		c.call(client, "POST", "/items", "abc")
	case 3:
		c.call(client, "GET", "/nowhere", "")
	case 4:
		c.call(client, "GET", "/fail", "")
	case 5:
		c.call(client, "GET", "/old", "")
	case 6:
		c.call(client, "POST", "/kept", "abc")
	case 7:
		c.call(&http.Client{Transport: counted{withToken{c.counted, c.base}, c.tally}}, "GET", "/ok", "")
	case 8:
		c.call(client, "PURGE", "/ok", "")
	case 9:
		c.send(client, request("GET", c.refused+"/ok", ""))
	case 10:
		c.send(client, request("GET", "gopher://nowhere/", ""))
	case 11:
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		c.send(client, request("GET", c.base+"/ok", "").WithContext(ctx))
	case 12:
		c.late(client, n)
	case 13:
		c.panicking()
	default:
		// The method "" is GET too.
		c.call(client, []string{"GET", ""}[n%2], "/ok", "")
	}
}

// late gives up some calls while they are under way.
func (c *calls) late(client *http.Client, n int) {
	switch {
	case n%400 == 12:
		client.Timeout = 20 * time.Millisecond
		c.call(client, "GET", "/sleep", "")
	case n%400 == 212:
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		c.send(client, request("GET", c.base+"/sleep", "").WithContext(ctx))
	default:
		c.call(client, "OPTIONS", "/ok", "")
	}
}

// panicking makes an exchange that never ends, and one on the same goroutine after it.
func (c *calls) panicking() {
	if *panics {
		func() {
			defer func() { _ = recover() }()
			c.call(&http.Client{Transport: panicker{}}, "GET", "/ok", "")
		}()
	}
	c.call(&http.Client{Transport: c.counted}, "GET", "/ok", "")
}

func (c *calls) call(client *http.Client, method, path, body string) {
	c.send(client, request(method, c.base+path, body))
}

func (c *calls) send(client *http.Client, r *http.Request) {
	response, err := client.Do(r)
	if err != nil {
		return
	}
	_, _ = io.Copy(ioutil.Discard, response.Body)
	_ = response.Body.Close()
}

func request(method, url, body string) *http.Request {
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if method == "" {
		r.Method = ""
	}
	return r
}

// withToken asks for something by a client of its own first, as those that fetch tokens do.
type withToken struct {
	next counted
	base string
}

func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := (&http.Client{Transport: w.next}).Get(w.base + "/items")
	if err == nil {
		_, _ = io.Copy(ioutil.Discard, response.Body)
		_ = response.Body.Close()
	}
	return w.next.next.RoundTrip(r)
}

type panicker struct{}

func (panicker) RoundTrip(*http.Request) (*http.Response, error) { panic("no exchange") }
