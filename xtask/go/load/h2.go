package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// h2 is one stream after another on an HTTP/2 connection that it may share with others.
type h2 struct {
	config    config
	transport *http.Transport
	base      string
	body      bytes.Buffer
}

func newH2(c config) []worker {
	var workers []worker
	for range c.conns {
		// A transport opens one connection to a host, unless the server allows too few streams on it.
		transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true}
		base := "https://" + c.address
		if c.mode == "h2c" {
			base = "http://" + c.address
			transport.Protocols.SetUnencryptedHTTP2(true)
		} else {
			transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, Certificates: c.certificates}
			transport.Protocols.SetHTTP2(true)
		}
		for range c.streams {
			workers = append(workers, &h2{config: c, transport: transport, base: base})
		}
	}
	return workers
}

func (h *h2) run(p *pacer, t *tally) {
	defer h.transport.CloseIdleConnections()
	for {
		n, ok := p.take()
		if !ok {
			return
		}
		request := h.config.mix.at(n)
		start := time.Now()
		status, err := h.exchange(request, n)
		elapsed := time.Since(start)
		problem := request.check(n, status, h.body.Bytes())
		if problem != "" && err != nil {
			problem += ": " + err.Error()
		}
		t.add(request, status, elapsed, problem)
	}
}

func (h *h2) exchange(r *request, n int64) (int, error) {
	h.body.Reset()
	ctx, cancel := context.WithTimeout(context.Background(), h.config.timeout)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, r.method, h.base+r.pathOf(n), nil)
	if err != nil {
		return 0, err
	}
	if r.send != "" {
		out, err = http.NewRequestWithContext(ctx, r.method, h.base+r.pathOf(n), strings.NewReader(r.send))
		if err != nil {
			return 0, err
		}
		// Without it, the transport may send the request again after a failure, and it would be counted twice.
		out.GetBody = nil
	}
	for name, values := range h.config.headers {
		out.Header[name] = values
	}
	answer, err := h.transport.RoundTrip(out)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.ProtoMajor != 2 {
		return 0, fmt.Errorf("the answer came over %s", answer.Proto)
	}
	if _, err := h.body.ReadFrom(answer.Body); err != nil {
		return 0, err
	}
	return answer.StatusCode, nil
}
