package main

import (
	"fmt"
	"io"
	"io/ioutil"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"unsafe"
)

// special makes the call with this number where a mode asks for calls of one kind; false where none does.
func (c *calls) special(n int) bool {
	switch *mode {
	case "direct":
		c.direct(n)
	case "hosts":
		client := &http.Client{Transport: counted{answering{}, c.tally}}
		c.send(client, request("GET", fmt.Sprintf("http://h%d.example:81/", n%150), ""))
	case "forged":
		client := &http.Client{Transport: counted{forging{n}, c.tally}}
		c.send(client, request("GET", "http://forged.example/", ""))
	case "nested":
		c.send(&http.Client{Transport: within{counted{answering{}, c.tally}, 3}}, request("GET", "http://outer.example/", ""))
	default:
		return false
	}
	return true
}

// direct asks a transport without a client, and lets a reverse proxy do so.
func (c *calls) direct(n int) {
	if n%2 == 0 {
		if response, err := c.counted.next.RoundTrip(request("GET", c.base+"/ok", "")); err == nil {
			_ = response.Body.Close()
		}
		return
	}
	to, err := url.Parse(c.base)
	if err != nil {
		panic(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.Transport = c.counted.next
	proxy.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/ok", nil))
}

// answering answers by itself.
type answering struct{}

func (answering) RoundTrip(r *http.Request) (*http.Response, error) {
	body := ioutil.NopCloser(strings.NewReader(""))
	return &http.Response{StatusCode: 200, Proto: "HTTP/1.1", Header: http.Header{}, Body: body, Request: r}, nil
}

// forging fails with an error whose type no other error has, as far as its interface's word tells.
type forging struct{ n int }

var (
	forgedMu sync.Mutex
	forged   = map[int]*[16]uintptr{}
)

func (f forging) RoundTrip(*http.Request) (*http.Response, error) {
	forgedMu.Lock()
	defer forgedMu.Unlock()
	err := error(&net.OpError{Op: "forge", Err: io.EOF})
	words := (*[2]unsafe.Pointer)(unsafe.Pointer(&err))
	// A copy of the table of its methods, which the runtime never frees or compares: it is kept here.
	if forged[f.n] == nil {
		table := *(*[16]uintptr)(words[0])
		forged[f.n] = &table
	}
	words[0] = unsafe.Pointer(forged[f.n])
	return nil, err
}

// within makes a request by a client of its own before each that it is given, so many deep.
type within struct {
	next  counted
	depth int
}

func (w within) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.depth > 0 {
		inner := &http.Client{Transport: within{w.next, w.depth - 1}}
		response, err := inner.Get(fmt.Sprintf("http://depth%d.example/", w.depth))
		if err != nil {
			return nil, err
		}
		_ = response.Body.Close()
	}
	return w.next.RoundTrip(r)
}
