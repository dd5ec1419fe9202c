//go:build go1.24
// +build go1.24

package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
)

// refused sends a request of these fields over HTTP/2, which Go's own client would not, and wants the server to answer it, whose
// status is this by HPACK: a number of its table, or a text.
func refused(l net.Addr, status string, fields ...string) {
	c, err := net.Dial(l.Network(), l.String())
	must(err)
	defer c.Close()
	var block []byte
	for _, field := range append([]string{":method GET", ":scheme http", ":path /ok", ":authority test"}, fields...) {
		name, value, _ := strings.Cut(field, " ")
		// Literal, not indexed, with lengths below 127 or of two bytes more.
		block = append(append(block, 0, byte(len(name))), name...)
		if len(value) < 127 {
			block = append(block, byte(len(value)))
		} else {
			rest := len(value) - 127
			block = append(block, 127, byte(rest%128)|128, byte(rest/128))
		}
		block = append(block, value...)
	}
	frame := func(kind, flags byte, stream uint32, payload []byte) []byte {
		head := []byte{0, byte(len(payload) >> 8), byte(len(payload)), kind, flags, 0, 0, 0, 0}
		binary.BigEndian.PutUint32(head[5:], stream)
		return append(head, payload...)
	}
	const settings, headers, endOfBoth = 4, 1, 5
	_, err = c.Write(append(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(settings, 0, 0, nil)...), frame(headers, endOfBoth, 1, block)...))
	must(err)
	answers := bufio.NewReader(c)
	for {
		head := make([]byte, 9)
		_, err := io.ReadFull(answers, head)
		must(err)
		payload := make([]byte, int(head[1])<<8|int(head[2]))
		_, err = io.ReadFull(answers, payload)
		must(err)
		if head[3] == headers {
			if !strings.HasPrefix(string(payload), status) {
				log.Panicf("%q instead of %q", payload, status)
			}
			return
		}
	}
}

func init() {
	exchanges["HTTP/2 in the clear"] = func() []request {
		both := new(http.Protocols)
		both.SetHTTP1(true)
		both.SetUnencryptedHTTP2(true)
		l := listen(&http.Server{Handler: handler(), Protocols: both, MaxHeaderBytes: 4096})
		only := new(http.Protocols)
		only.SetUnencryptedHTTP2(true)
		client := &http.Client{Transport: &http.Transport{Protocols: only}}
		// net/http answers these itself.
		refused(l.Addr(), "\x8c", "connection close")
		long := "x " + strings.Repeat("x", 1000)
		refused(l.Addr(), "N\x03431", long, long, long, long, long, long)
		all := over(client, "http://"+l.Addr().String(), 2)
		return append(all, by(l.Addr(), plain("GET", "/ok"), request{"GET", 200, "/ok"})...)
	}
}
