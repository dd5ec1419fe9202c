package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// calls is what came of a program that makes requests by http.Client.
type calls struct {
	Error string `json:"error,omitempty"`
	// Made is how many exchanges the program counted itself.
	Made int `json:"made"`
	// Counted is how many the agent counted.
	Counted int `json:"counted"`
	// Wrong names the kinds that were not counted exactly as often as they were made.
	Wrong []string `json:"wrong"`
}

// call has the agent measure a program that makes calls of every kind, over HTTP/1.1 or HTTP/2.
func call(capabilities []string, protocol ...string) calls {
	c := calls{Wrong: []string{}}
	s, err := startService(exec.Command("/client", append([]string{"-http", "-", "-https", "-", "-h2c", "-", "-n", "300", "-c", "4"}, protocol...)...))
	if err != nil {
		c.Error = err.Error()
		return c
	}
	defer func() { _ = s.command.Process.Kill() }()
	a, err := startAgent([]*service{s}, capabilities, nil)
	if err != nil {
		c.Error = err.Error()
		return c
	}
	if err := c.measure(s, a.ended); err != nil {
		c.Error = fmt.Sprintf("%v: %s", err, strings.Join(a.log.tail(12), "; "))
	}
	a.stop()
	return c
}

func (c *calls) measure(s *service, ended <-chan struct{}) error {
	if err := until(ended, isReady); err != nil {
		return fmt.Errorf("not ready: %v", err)
	}
	var t trial
	if err := until(ended, func() (bool, error) { return t.target(s.command.Process.Pid) }); err != nil {
		return fmt.Errorf("not measured: %v", err)
	}
	for _, off := range t.Disabled {
		if strings.HasPrefix(off, "http-client") {
			return fmt.Errorf("off: %s", off)
		}
	}
	if _, err := get(s.address("admin"), "/_go"); err != nil {
		return err
	}
	made := map[string]int{}
	if err := until(ended, func() (bool, error) { return done(s, made) }); err != nil {
		return fmt.Errorf("its calls: %v", err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		if err := c.compare(made); err != nil {
			return err
		}
		if len(c.Wrong) == 0 || time.Now().After(deadline) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// done reads what the program has counted, once it has made all its calls.
func done(s *service, made map[string]int) (bool, error) {
	body, err := get(s.address("admin"), "/_client")
	if err != nil {
		return false, err
	}
	var said struct {
		Done   bool
		Counts []struct {
			Method, Host string
			Status       int
			ErrorType    string `json:"error_type"`
			Count        int
		}
	}
	if err := json.Unmarshal(body, &said); err != nil {
		return false, err
	}
	for _, it := range said.Counts {
		status, failure := strconv.Itoa(it.Status), it.ErrorType
		if it.Status == 0 {
			status = ""
		} else if it.Status >= 400 {
			failure = status
		}
		method := it.Method
		if method == "PURGE" {
			method = "_OTHER"
		}
		if said.Done {
			made[strings.Join([]string{method, status, it.Host, failure}, " ")] += it.Count
		}
	}
	return said.Done, nil
}

// compare reads from /metrics what the agent has counted.
func (c *calls) compare(made map[string]int) error {
	body, err := get(agentAddress, "/metrics")
	if err != nil {
		return err
	}
	counted := map[string]int{}
	c.Made, c.Counted, c.Wrong = 0, 0, []string{}
	for _, line := range strings.Split(string(body), "\n") {
		lost := strings.HasPrefix(line, "exporter_lost_total")
		if !lost && !strings.HasPrefix(line, "http_client_request_duration_seconds_count{") {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		switch {
		case err != nil:
			return fmt.Errorf("no sample: %s", line)
		case lost:
			if value != 0 {
				c.Wrong = append(c.Wrong, line)
			}
		default:
			host := label(line, "server_address")
			if port := label(line, "server_port"); port != "" {
				host += ":" + port
			}
			counted[strings.Join([]string{label(line, "http_request_method"), label(line, "http_response_status_code"), host,
				label(line, "error_type")}, " ")] += int(value)
			c.Counted += int(value)
		}
	}
	for of, n := range made {
		c.Made += n
		if counted[of] != n {
			c.Wrong = append(c.Wrong, fmt.Sprintf("%s: %d made, %d counted", of, n, counted[of]))
		}
	}
	for of, n := range counted {
		if made[of] == 0 {
			c.Wrong = append(c.Wrong, fmt.Sprintf("%s: none made, %d counted", of, n))
		}
	}
	return nil
}
