package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"time"
)

// h1 is one HTTP/1.1 connection, read and written by hand: net/http's client would need more CPU than the service.
type h1 struct {
	config config
	depth  int
	conn   net.Conn
	in     *bufio.Reader
	out    []byte
	body   []byte
	// deadlineSet is when the connection's deadline was last moved.
	deadlineSet time.Time
}

// sent is a request whose answer is awaited.
type sent struct {
	n     int64
	start time.Time
}

func newH1(c config, depth int) []worker {
	workers := make([]worker, c.conns)
	for i := range workers {
		workers[i] = &h1{config: c, depth: depth}
	}
	return workers
}

func (h *h1) run(p *pacer, t *tally) {
	defer h.close()
	var pending []sent
	for {
		pending = pending[:0]
		for len(pending) < h.depth {
			n, ok := p.take()
			if !ok {
				break
			}
			pending = append(pending, sent{n: n})
		}
		if len(pending) == 0 {
			return
		}
		h.exchange(pending, t)
	}
}

// exchange sends all of pending at once and reads the answers. When the connection closes in between, those that were
// not answered go over a new one, except the first of them: its answer was the closing.
func (h *h1) exchange(pending []sent, t *tally) {
	for len(pending) > 0 {
		if err := h.send(pending); err != nil {
			h.fail(pending[0], err, t)
			pending = pending[1:]
			continue
		}
		for len(pending) > 0 {
			request := h.config.mix.at(pending[0].n)
			status, closing, err := h.read(request.method == "HEAD")
			if err != nil {
				h.fail(pending[0], err, t)
				pending = pending[1:]
				break
			}
			t.add(request, status, time.Since(pending[0].start), request.check(pending[0].n, status, h.body))
			pending = pending[1:]
			if closing {
				h.close()
				break
			}
		}
	}
}

// fail counts a request that got no answer; one that expects none is no error.
func (h *h1) fail(s sent, err error, t *tally) {
	h.close()
	request := h.config.mix.at(s.n)
	problem := request.check(s.n, 0, nil)
	if problem != "" {
		problem += ": " + err.Error()
	}
	t.add(request, 0, time.Since(s.start), problem)
}

func (h *h1) send(pending []sent) error {
	now := time.Now()
	for i := range pending {
		pending[i].start = now
	}
	if h.conn == nil {
		if err := h.open(); err != nil {
			return err
		}
	}
	h.out = h.out[:0]
	for _, s := range pending {
		h.out = h.appendRequest(h.out, s.n)
	}
	now = time.Now()
	for i := range pending {
		pending[i].start = now
	}
	// Setting a deadline costs as much as a good part of a request; a second's delay of it does no harm.
	if now.Sub(h.deadlineSet) > time.Second {
		h.deadlineSet = now
		if err := h.conn.SetDeadline(now.Add(h.config.timeout + time.Second)); err != nil {
			return err
		}
	}
	_, err := h.conn.Write(h.out)
	return err
}

func (h *h1) appendRequest(out []byte, n int64) []byte {
	r := h.config.mix.at(n)
	out = append(out, r.method...)
	out = append(out, ' ')
	out = append(out, r.pathOf(n)...)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, h.config.address...)
	if r.send != "" || r.method == "POST" || r.method == "PUT" || r.method == "PATCH" {
		out = append(out, "\r\nContent-Length: "...)
		out = strconv.AppendInt(out, int64(len(r.send)), 10)
	}
	out = append(out, "\r\n\r\n"...)
	return append(out, r.send...)
}

func (h *h1) open() error {
	conn, err := net.DialTimeout("tcp", h.config.address, h.config.timeout)
	if err != nil {
		return err
	}
	if h.config.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	}
	h.conn, h.deadlineSet = conn, time.Time{}
	if h.in == nil {
		h.in = bufio.NewReaderSize(conn, 16<<10)
	} else {
		h.in.Reset(conn)
	}
	return nil
}

func (h *h1) close() {
	if h.conn != nil {
		h.conn.Close()
		h.conn = nil
	}
}

// read reads one answer, its body into h.body, and says if the connection ends with it.
func (h *h1) read(head bool) (status int, closing bool, err error) {
	for {
		var length int64
		var chunked bool
		status, length, chunked, closing, err = h.readHead()
		if err != nil {
			return 0, false, err
		}
		if status >= 100 && status < 200 && status != 101 {
			continue
		}
		h.body = h.body[:0]
		switch {
		case status == 101:
			return status, true, nil
		case head || status == 204 || status == 304:
		case chunked:
			err = h.readChunks()
		case length >= 0:
			err = h.readBody(length)
		default:
			closing = true
			h.body, err = io.ReadAll(h.in)
		}
		return status, closing, err
	}
}

var errMalformed = errors.New("malformed answer")

func (h *h1) readHead() (status int, length int64, chunked, closing bool, err error) {
	line, err := h.in.ReadSlice('\n')
	if err != nil {
		return
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		err = errMalformed
		return
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return
	}
	length = -1
	for {
		if line, err = h.in.ReadSlice('\n'); err != nil {
			return
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			return
		}
		switch name, value, _ := bytes.Cut(line, []byte(": ")); {
		case len(name) == 14 && bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return
			}
		case len(name) == 17 && bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case len(name) == 10 && bytes.EqualFold(name, []byte("Connection")):
			closing = bytes.EqualFold(value, []byte("close"))
		}
	}
}

func (h *h1) readBody(length int64) error {
	at := len(h.body)
	if need := at + int(length); cap(h.body) < need {
		h.body = append(make([]byte, 0, need), h.body...)
	}
	h.body = h.body[:at+int(length)]
	_, err := io.ReadFull(h.in, h.body[at:])
	return err
}

func (h *h1) readChunks() error {
	for {
		line, err := h.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 64)
		if err != nil {
			return errMalformed
		}
		if err := h.readBody(size); err != nil {
			return err
		}
		if line, err = h.in.ReadSlice('\n'); err != nil {
			return err
		}
		if len(bytes.TrimRight(line, "\r\n")) != 0 {
			return errMalformed
		}
		if size == 0 {
			return nil
		}
	}
}
