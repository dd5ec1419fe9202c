//go:build !go1.24
// +build !go1.24

package self

import "net/http"

// standardH2C is nil where net/http cannot speak HTTP/2 in the clear.
var standardH2C func(srv *http.Server) error
