package main

import (
	"net/http"
	"unsafe"
)

// words are those of a string: where it is, and its length.
type words struct{ address, length uintptr }

// Requests that end with fields which are not what they say: /lie?of=method|pattern|path|uri|url&address=A&length=L makes a field
// of its own request a string at that address, of that length. Nothing of the program looks at it afterwards.
func init() {
	http.HandleFunc("/lie", func(w http.ResponseWriter, r *http.Request) {
		address, length := uintptr(number(r, "address", 0)), uintptr(number(r, "length", 0))
		lie := words{address, length}
		_, _ = w.Write([]byte("done\n"))
		// So that net/http has no use for them any more.
		w.(http.Flusher).Flush()
		switch r.URL.Query().Get("of") {
		case "method":
			*(*words)(unsafe.Pointer(&r.Method)) = lie
		case "pattern":
			*(*words)(unsafe.Pointer(&r.Pattern)) = lie
		case "path":
			// Its own: the query is read from the other.
			own := *r.URL
			*(*words)(unsafe.Pointer(&own.Path)) = lie
			r.URL = &own
		case "uri":
			*(*words)(unsafe.Pointer(&r.RequestURI)) = lie
		case "url":
			*(*uintptr)(unsafe.Pointer(&r.URL)) = address
		}
	})
}
