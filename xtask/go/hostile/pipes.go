package main

import (
	"errors"
	"io"
	"log"
	"net"
	"net/http"
)

// pipes is a listener within the program: connections that cost no file and no port.
type pipes struct{ c chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.c
	if !ok {
		return nil, errors.New("closed")
	}
	return c, nil
}
func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// within serves in the program itself, and returns what connects to it.
func within(handler http.Handler) func() net.Conn {
	l := pipes{make(chan net.Conn)}
	quiet := log.New(io.Discard, "", 0)
	go func() { _ = (&http.Server{Handler: handler, ErrorLog: quiet}).Serve(l) }()
	return func() net.Conn {
		ours, its := net.Pipe()
		l.c <- its
		return ours
	}
}
