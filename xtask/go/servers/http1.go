package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

var quiet = log.New(io.Discard, "", 0)

// listen serves on a new port of the loopback device.
func listen(server *http.Server) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	server.ErrorLog = quiet
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Panic(err)
		}
	}()
	return l
}

// by sends bytes and reads as many final answers as there are requests; then the connection is closed.
func by(l net.Addr, bytes string, of ...request) []request {
	c, err := net.Dial(l.Network(), l.String())
	must(err)
	defer c.Close()
	_, err = io.WriteString(c, bytes)
	must(err)
	answers := bufio.NewReader(c)
	for _, it := range of {
		expect(answers, it)
	}
	return of
}

// expect reads one answer, behind informational ones.
func expect(answers *bufio.Reader, of request) {
	for {
		answer, err := http.ReadResponse(answers, &http.Request{Method: of.Method})
		if err != nil {
			log.Panicf("%v: %v", of, err)
		}
		if answer.StatusCode != of.Status && answer.StatusCode/100 == 1 {
			continue
		}
		if answer.StatusCode != of.Status {
			log.Panicf("%v: %s", of, answer.Status)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		return
	}
}

func plain(method, target string, fields ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: test\r\n%s\r\n", method, target, strings.Join(append(fields, ""), "\r\n"))
}

func init() {
	exchanges["http1"] = func() []request {
		l := listen(&http.Server{Handler: handler()}).Addr()
		all := []request{}
		one := func(bytes string, of ...request) { all = append(all, by(l, bytes, of...)...) }
		get := func(target string, status int, route string, fields ...string) {
			one(plain("GET", target, fields...), request{"GET", status, route})
		}
		// The server says that it may go on, and the handler reads what follows, or does not.
		one(plain("POST", "/body", "Expect: 100-continue", "Content-Length: 2")+"hi", request{"POST", 200, "/body"})
		one(plain("POST", "/refuse", "Expect: 100-continue", "Content-Length: 2"), request{"POST", 403, "/refuse"})
		one("GET /ok HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /ok HTTP/1.0\r\n\r\n", request{"GET", 200, "/ok"}, request{"GET", 200, "/ok"})
		one(plain("OPTIONS", "*"), request{"OPTIONS", 200, "*"})
		one(plain("CONNECT", "other:443"), request{"CONNECT", 404, ""})
		one(plain("HEAD", "/ok"), request{"HEAD", 200, "/ok"})
		one(strings.Repeat(plain("GET", "/ok"), 3)+plain("HEAD", "/empty")+plain("POST", "/body", "Transfer-Encoding: chunked")+"2\r\nhi\r\n0\r\n\r\n"+plain("GET", "/moved"),
			request{"GET", 200, "/ok"}, request{"GET", 200, "/ok"}, request{"GET", 200, "/ok"}, request{"HEAD", 204, "/empty"}, request{"POST", 200, "/body"}, request{"GET", 302, "/moved"})
		one(plain("POST", "/small", "Content-Length: 9")+"too large", request{"POST", 413, "/small"})
		get("http://other/ok", 200, "/ok")
		get("/ok?a=1;b=2", 200, "/ok")
		get("/semi/?a=1;b=2", 200, "/semi/")
		get("/hints", 404, "/hints")
		get("/only", 200, "/only")
		get("/late", 200, "/late")
		get("/trailers", 200, "/trailers", "TE: trailers")
		get("/content", 200, "/content")
		get("/content", 206, "/content", "Range: bytes=2-3")
		get("/content", 206, "/content", "Range: bytes=0-1,4-5")
		get("/content", 416, "/content", "Range: bytes=90-")
		get("/content", 304, "/content", `If-None-Match: "one"`)
		get("/content", 412, "/content", `If-Match: "two"`)
		get("/ok", 200, "/ok", "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
		get("/hijacks", 101, "/hijacks")
		get("/hijacks-late", 202, "/hijacks-late")
		get("/switches", 101, "/switches")
		get("/duplex", 200, "/duplex")
		// The body is more than the server reads on when the handler has left it.
		one(plain("POST", "/refuse", "Content-Length: 300000"), request{"POST", 403, "/refuse"})
		return all
	}
	// net/http answers these itself.
	exchanges["no handler"] = func() []request {
		l := listen(&http.Server{Handler: handler(), MaxHeaderBytes: 4096}).Addr()
		for bytes, status := range map[string]int{
			"GET /ok HTTP/1.1\r\n\r\n":                                    400,
			"no request at all\r\n\r\n":                                   400,
			"GET /ok HTTP/9.9\r\nHost: test\r\n\r\n":                      505,
			plain("GET", "/ok", "Expect: a miracle"):                      417,
			plain("GET", "/ok", "Transfer-Encoding: sealed"):              501,
			plain("GET", "/ok", "X: "+strings.Repeat("x", 1<<20)):         431,
			plain("GET", "/ok", "Content-Length: 1", "Content-Length: 2"): 400,
		} {
			c, err := net.Dial(l.Network(), l.String())
			must(err)
			// It may be answered before all is sent.
			_, _ = io.WriteString(c, bytes)
			expect(bufio.NewReader(c), request{"GET", status, ""})
			must(c.Close())
		}
		return nil
	}
	exchanges["without the general OPTIONS"] = func() []request {
		l := listen(&http.Server{Handler: handler(), DisableGeneralOptionsHandler: true})
		return by(l.Addr(), plain("OPTIONS", "*"), request{"OPTIONS", 400, "*"})
	}
	exchanges["unix"] = func() []request {
		directory, err := os.MkdirTemp("", "servers")
		must(err)
		defer os.RemoveAll(directory)
		l, err := net.Listen("unix", filepath.Join(directory, "socket"))
		must(err)
		go func() { _ = http.Serve(l, handler()) }()
		return by(l.Addr(), plain("GET", "/ok"), request{"GET", 200, "/ok"})
	}
	// Requests in flight while their server ends: one waits for them, the other takes their connections away.
	exchanges["ends"] = func() []request {
		gentle, hard := &http.Server{Handler: handler()}, &http.Server{Handler: handler()}
		soft := listen(gentle).Addr()
		answered := make(chan bool)
		go func() { by(soft, plain("GET", "/sleeps"), request{"GET", 200, "/sleeps"}); close(answered) }()
		<-begun
		must(gentle.Shutdown(context.Background()))
		<-answered
		c, err := net.Dial("tcp", listen(hard).Addr().String())
		must(err)
		_, err = io.WriteString(c, plain("GET", "/sleeps"))
		must(err)
		<-begun
		must(hard.Close())
		_, _ = io.Copy(io.Discard, c)
		return []request{{"GET", 200, "/sleeps"}, {"GET", 200, "/sleeps"}}
	}
	// A handler without a server is no request of one.
	exchanges["recorded"] = func() []request {
		for i := 0; i < 3; i++ {
			recorded(handler(), "/ok?i="+strconv.Itoa(i))
		}
		return nil
	}
}
