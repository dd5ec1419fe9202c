//go:build !go1.24

package main

import (
	"net"
	"net/http"
)

// serve speaks HTTP/1.1.
func serve(l net.Listener, handler http.Handler) error {
	return http.Serve(l, handler)
}
