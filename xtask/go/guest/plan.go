package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
)

// requests is how many the plain load sends.
const requests = 200

// The weights of the mix sum up to 20, so that each half of the requests holds each kind as often as its weight says.
var mix = []string{
	"GET /ok 200 /ok 8",
	"GET /fail 500 /fail 2",
	"POST /items 201 /items 3 send=abc",
	"GET /items/{n} 200 /items/{id} 4",
	"GET /status/418 418 /status/{code} 1",
	"GET /nowhere/{n} 404 - 2",
}

// crowdedMix is half of requests without a route.
var crowdedMix = []string{
	"GET /ok 200 /ok 3",
	"GET /fail 500 /fail 1",
	"POST /items 201 /items 2 send=abc",
	"GET /items/{n} 200 /items/{id} 2",
	"GET /status/418 418 /status/{code} 1",
	"GET /implicit 200 /implicit 1",
	"GET /nowhere/{n} 404 - 5",
	"GET /absent/{n}/x 404 - 5",
}

// kind is what requests are counted by; the route is empty where none matched.
type kind struct {
	pid    string
	method string
	status string
	route  string
}

// work is what is sent to a service.
type work struct {
	to        *service
	arguments []string
	mix       []string
}

// plan is how a trial loads the services.
type plan struct {
	// steps run one after another, what is in a step at the same time.
	steps [][]work
	// requests is how many that makes; 0 where they are sent for some time.
	requests int
	// crowded says that programs are preempted: then as many requests may be wrong as the agent says that it lost.
	crowded bool
	// longest is the most seconds that all requests of a service can have taken together; 0 for any.
	longest float64
}

// plain is 200 requests, half over HTTP/1.1 and half over HTTP/2.
func plain(s *service) plan {
	p := plan{requests: requests}
	for mode, kind := range map[string]string{"h1": "http", "h2": "https"} {
		arguments := []string{"-mode", mode, "-address", s.address(kind), "-n", strconv.Itoa(requests / 2), "-c", "4"}
		p.steps = append(p.steps, []work{{s, arguments, mix}})
	}
	return p
}

// together is all that the services can answer for some time, at the same time.
func together(services []*service, seconds float64) plan {
	const connections = 8
	p := plan{crowded: true, longest: (seconds + 10) * connections}
	var step []work
	for _, s := range services {
		arguments := []string{"-address", s.address("http"), "-duration", fmt.Sprintf("%gs", seconds), "-c", strconv.Itoa(connections)}
		step = append(step, work{s, arguments, crowdedMix})
	}
	p.steps = [][]work{step}
	return p
}

// load sends all of a step at the same time.
func (t *trial) load(step []work) error {
	errs := make(chan error, len(step))
	var mutex sync.Mutex
	for _, w := range step {
		go func(w work) {
			report, err := w.send(t.plan.crowded)
			if err != nil {
				errs <- fmt.Errorf("load %v: %v", w.arguments, err)
				return
			}
			mutex.Lock()
			defer mutex.Unlock()
			t.Sent += report.Total
			t.Failed += report.Errors
			for _, c := range report.Counts {
				t.sent[kind{w.to.pid(), c.Method, strconv.Itoa(c.Status), c.Route}] += c.Count
			}
			errs <- nil
		}(w)
	}
	var first error
	for range step {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// report is what the load generator prints.
type report struct {
	Total, Errors int
	Counts        []struct {
		Method, Route string
		Status, Count int
	}
}

func (w work) send(crowded bool) (*report, error) {
	command := append([]string{"/load"}, w.arguments...)
	for _, line := range w.mix {
		command = append(command, "-mix", line)
	}
	if crowded {
		command = append([]string{"/proc/self/exe", "on", "1"}, command...)
	}
	load := exec.Command(command[0], command[1:]...)
	load.Stderr = os.Stderr
	out, err := load.Output()
	if err != nil {
		return nil, err
	}
	var r report
	return &r, json.Unmarshal(out, &r)
}
