package main

import (
	"io"
	"io/ioutil"
	"net/http"
	"net/http/httptest"
)

// calls answers with what it gets from another server of this process, by http.Client.
func calls() http.HandlerFunc {
	inner := httptest.NewServer(http.HandlerFunc(hello))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	return func(w http.ResponseWriter, _ *http.Request) {
		response, err := client.Get(inner.URL + "/hello")
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = io.Copy(ioutil.Discard, response.Body)
		_ = response.Body.Close()
		_, _ = w.Write([]byte("hello\n"))
	}
}
