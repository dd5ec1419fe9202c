package main

import (
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
)

// hijack takes the connection over, answers by hand, and closes it.
func hijack(w http.ResponseWriter, r *http.Request) {
	hijacker, ok := w.(http.Hijacker)
	if !ok || r.ProtoMajor != 1 {
		http.Error(w, "this connection cannot be hijacked", http.StatusNotImplemented)
		return
	}
	conn, rw, err := hijacker.Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	pause(r)
	_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhijacked\n")
	_ = rw.Flush()
}

// websocket upgrades the connection and leaves it to a goroutine that sends back what it gets: it lives on after the
// handler has returned.
func websocket(w http.ResponseWriter, r *http.Request) {
	hijacker, ok := w.(http.Hijacker)
	if !ok || r.ProtoMajor != 1 || r.Header.Get("Sec-Websocket-Key") == "" {
		http.Error(w, "not a WebSocket handshake", http.StatusBadRequest)
		return
	}
	conn, rw, err := hijacker.Hijack()
	if err != nil {
		return
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
	_ = rw.Flush()
	go func() {
		defer conn.Close()
		_, _ = io.Copy(conn, rw.Reader)
	}()
}

// proxy passes the request on to /ok of this service itself, so that one request is served inside another.
func proxy(w http.ResponseWriter, r *http.Request) {
	address := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if r.TLS != nil || r.ProtoMajor != 1 {
		http.Error(w, "only over HTTP/1.1", http.StatusNotImplemented)
		return
	}
	reverse := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address.String()})
	direct := reverse.Director
	reverse.Director = func(out *http.Request) {
		direct(out)
		out.URL.Path = "/ok"
	}
	reverse.ServeHTTP(w, r)
}
