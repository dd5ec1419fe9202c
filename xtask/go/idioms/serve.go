//go:build go1.24

package main

import (
	"net"
	"net/http"
)

// serve speaks HTTP/1.1 and HTTP/2 in the clear.
func serve(l net.Listener, handler http.Handler) error {
	server := http.Server{Handler: handler, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	return server.Serve(l)
}
