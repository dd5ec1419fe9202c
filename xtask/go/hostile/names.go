package main

import "net/http"

// A pattern that clears the terminal of who looks at it.
func init() {
	http.HandleFunc("/names/\x1b[2J\a\u009b\u2028", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("named\n"))
	})
}
