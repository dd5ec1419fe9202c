package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// request is one line of the mix.
type request struct {
	method string
	path   string
	status int
	route  string
	weight int
	body   string
	verify bool
	send   string
}

// mix is the order in which its requests are sent, over and over.
type mix struct {
	order []*request
}

func (m *mix) at(n int64) *request {
	return m.order[n%int64(len(m.order))]
}

// pathOf is the path of the n-th request.
func (r *request) pathOf(n int64) string {
	if !strings.Contains(r.path, "{n}") {
		return r.path
	}
	return strings.ReplaceAll(r.path, "{n}", strconv.FormatInt(n+1, 10))
}

// check says what is wrong with an answer, or nothing.
func (r *request) check(n int64, status int, body []byte) string {
	if status != r.status {
		return fmt.Sprintf("%s %s: status %d instead of %d", r.method, r.pathOf(n), status, r.status)
	}
	if !r.verify {
		return ""
	}
	wanted := strings.ReplaceAll(r.body, "{n}", strconv.FormatInt(n+1, 10))
	if got := strings.TrimSpace(string(body)); got != wanted {
		return fmt.Sprintf("%s %s: body %.80q instead of %.80q", r.method, r.pathOf(n), got, wanted)
	}
	return ""
}

type mixFlag []string

func (f *mixFlag) String() string { return strings.Join(*f, "; ") }

func (f *mixFlag) Set(line string) error {
	*f = append(*f, line)
	return nil
}

func readMix(lines []string, file string) (*mix, error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		lines = append(lines, strings.Split(string(text), "\n")...)
	}
	var requests []*request
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		r, err := parseRequest(line)
		if err != nil {
			return nil, fmt.Errorf("mix line %q: %v", line, err)
		}
		requests = append(requests, r)
	}
	if len(requests) == 0 {
		requests = []*request{{method: "GET", path: "/hello", status: 200, route: "/hello", weight: 1}}
	}
	return &mix{interleave(requests)}, nil
}

func parseRequest(line string) (*request, error) {
	words := strings.Fields(line)
	if len(words) < 5 {
		return nil, fmt.Errorf("METHOD PATH STATUS ROUTE WEIGHT are needed")
	}
	r := &request{method: words[0], path: words[1], route: words[3]}
	if r.route == "-" {
		r.route = ""
	}
	var err error
	if r.status, err = strconv.Atoi(words[2]); err != nil {
		return nil, err
	}
	if r.weight, err = strconv.Atoi(words[4]); err != nil || r.weight < 1 || r.weight > 1000 {
		return nil, fmt.Errorf("the weight is a number from 1 to 1000")
	}
	for _, word := range words[5:] {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "body":
			// A space is written as an underscore, since words are split at spaces.
			r.body, r.verify = strings.ReplaceAll(value, "_", " "), true
		case "send":
			r.send = value
		default:
			return nil, fmt.Errorf("unknown word %q", word)
		}
	}
	return r, nil
}

// interleave spreads the requests evenly by their weights (smooth weighted round robin), so that each cycle holds each
// request exactly as often as its weight says.
func interleave(requests []*request) []*request {
	sum := 0
	for _, r := range requests {
		sum += r.weight
	}
	credit := make([]int, len(requests))
	order := make([]*request, 0, sum)
	for len(order) < sum {
		best := 0
		for i, r := range requests {
			credit[i] += r.weight
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= sum
		order = append(order, requests[best])
	}
	return order
}
