//go:build go1.24
// +build go1.24

package self

import "net/http"

// standardH2C makes a server speak HTTP/2 in the clear by net/http's own means.
var standardH2C = func(srv *http.Server) error {
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return nil
}
