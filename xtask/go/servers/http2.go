package main

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
)

func recorded(h http.Handler, target string) {
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", target, nil))
}

// ask does one request by a client that follows no redirects.
func ask(client *http.Client, url string, of request, content string, fields ...string) request {
	asked, err := http.NewRequest(of.Method, url, strings.NewReader(content))
	must(err)
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		asked.Header.Set(name, value)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, err := client.Do(asked)
	must(err)
	_, _ = io.Copy(io.Discard, answer.Body)
	must(answer.Body.Close())
	if answer.StatusCode != of.Status {
		log.Panicf("%v: %s", of, answer.Status)
	}
	return of
}

// over asks a server for what differs between the versions of HTTP.
func over(client *http.Client, at string, version int) []request {
	all := []request{}
	one := func(method, path string, status int, content string, fields ...string) {
		all = append(all, ask(client, at+path, request{method, status, path}, content, fields...))
	}
	one("GET", "/ok", 200, "")
	one("HEAD", "/ok", 200, "")
	one("POST", "/body", 200, "hi", "Expect: 100-continue")
	one("POST", "/small", 413, "too large")
	one("GET", "/hints", 404, "")
	one("GET", "/only", 200, "")
	one("GET", "/late", 200, "")
	one("GET", "/trailers", 200, "")
	one("GET", "/content", 206, "", "Range: bytes=2-3")
	one("GET", "/content", 304, "", `If-None-Match: "one"`)
	one("GET", "/moved", 302, "")
	one("DELETE", "/empty", 204, "")
	// A client that goes away: the handler comes to its end all the same.
	gone, cancel := context.WithCancel(context.Background())
	asked, err := http.NewRequestWithContext(gone, "GET", at+"/sleeps", nil)
	must(err)
	go func() { <-begun; cancel() }()
	if answer, err := client.Do(asked); err == nil {
		if answer.ProtoMajor != version {
			log.Panic(answer.Proto)
		}
		_ = answer.Body.Close()
	}
	return append(all, request{"GET", 200, "/sleeps"})
}

func unstarted() *httptest.Server {
	server := httptest.NewUnstartedServer(handler())
	server.Config.ErrorLog = quiet
	return server
}

func init() {
	exchanges["httptest"] = func() []request {
		server := unstarted()
		server.Start()
		defer server.Close()
		return over(server.Client(), server.URL, 1)
	}
	exchanges["httptest over TLS"] = func() []request {
		server := unstarted()
		server.StartTLS()
		defer server.Close()
		return over(server.Client(), server.URL, 1)
	}
	exchanges["HTTP/2 over TLS"] = func() []request {
		server := unstarted()
		server.EnableHTTP2 = true
		server.StartTLS()
		defer server.Close()
		return over(server.Client(), server.URL, 2)
	}
}
