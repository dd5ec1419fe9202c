package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	agentAddress = "127.0.0.1:9464"
	wait         = 90 * time.Second
	// fewest is how many requests two services on one CPU must answer. Where threads shared a program's stack, 200 were
	// enough to be off.
	fewest = 2000
)

// trial is one run of the agent with one set of capabilities.
type trial struct {
	Capabilities []string `json:"capabilities"`
	// Error says why these capabilities were not enough, or what went wrong.
	Error string `json:"error,omitempty"`
	// Log is the end of what the agent wrote, if something went wrong.
	Log []string `json:"log,omitempty"`
	// Method is how probes are attached.
	Method string `json:"attach_method,omitempty"`
	// Verified is the verifier's work by program, where the kernel tells.
	Verified map[string]int `json:"verified_instructions"`
	Attached int            `json:"attached_probes"`
	Disabled []string       `json:"disabled"`
	// Lacks is what the kernel is without, by the agent's word.
	Lacks []string `json:"kernel_lacks"`
	Sent  int      `json:"sent"`
	// Failed is how many of the requests had a wrong answer.
	Failed  int `json:"failed"`
	Counted int `json:"counted"`
	// Wrong names the kinds of requests that were not counted exactly as often as they were sent.
	Wrong []string `json:"wrong"`
	// Off is by how many requests they were wrong, over all kinds: one that is counted as another kind is two.
	Off int `json:"off"`
	// Lost is what the agent says that it could not count.
	Lost int `json:"lost"`
	// Private names the programs to which the kernel gave a stack that preempted threads share, if it gives any.
	Private *stacks `json:"private_stacks,omitempty"`
	Ready   float64 `json:"ready_seconds"`
	Detach  float64 `json:"detach_seconds"`
	Exit    int     `json:"exit"`
	// Answers says that the service answered after the agent had gone.
	Answers bool `json:"answers_after"`

	sent map[kind]int
	plan plan
	// spoilt says what is wrong with the durations' sums.
	spoilt string
}

func try(services []*service, capabilities []string, p plan) trial {
	t := trial{Capabilities: capabilities, Verified: map[string]int{}, Disabled: []string{}, Lacks: []string{}, Wrong: []string{}, Exit: -1,
		sent: map[kind]int{}, plan: p}
	started := time.Now()
	var first []string
	if p.crowded {
		first = []string{"on", "1", "/proc/self/exe"}
	}
	a, err := startAgent(services, capabilities, first)
	if err != nil {
		t.Error = err.Error()
		return t
	}
	err = t.measure(services, a.command.Process.Pid, a.ended, started)
	stopped := time.Now()
	a.stop()
	t.Detach, t.Exit = time.Since(stopped).Seconds(), a.command.ProcessState.ExitCode()
	t.Answers = true
	for _, s := range services {
		t.Answers = t.Answers && status(s.address("http"), "/ok") == http.StatusOK
	}
	if err == nil {
		err = t.judge()
	}
	t.Verified = a.log.verified()
	if err != nil {
		t.Error, t.Log = err.Error(), a.log.tail(12)
		if n := len(t.Log); t.Exit != 0 && n > 0 {
			t.Error += ": " + t.Log[n-1]
		}
	}
	return t
}

// agent is a running agent.
type agent struct {
	command *exec.Cmd
	log     *agentLog
	ended   chan struct{}
}

// startAgent starts one that measures these services, with these capabilities, by a command that comes first.
func startAgent(services []*service, capabilities, first []string) (*agent, error) {
	arguments := append(first, "with", strings.Join(capabilities, ","), "/gopulse", "run", "--load-all", "--metrics-address", agentAddress,
		"--log-level", "debug")
	for _, s := range services {
		arguments = append(arguments, "--pid", s.pid())
	}
	a := &agent{exec.Command("/proc/self/exe", arguments...), &agentLog{}, make(chan struct{})}
	a.command.Env = append(os.Environ(), "NO_COLOR=1")
	pipe, err := a.command.StderrPipe()
	if err == nil {
		err = a.command.Start()
	}
	if err != nil {
		return nil, err
	}
	go func() {
		a.log.read(pipe)
		_ = a.command.Wait()
		close(a.ended)
	}()
	return a, nil
}

// stop ends it, and waits until it has ended.
func (a *agent) stop() {
	_ = a.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-a.ended:
	case <-time.After(wait):
		_ = a.command.Process.Kill()
		<-a.ended
	}
}

func (t *trial) judge() error {
	// Of a request whose memory could not be read the kind is not known: it is missing in one series, and too many in another.
	allowed := 0
	if t.plan.crowded {
		allowed = 2 * t.Lost
	}
	switch {
	case t.Exit != 0:
		return fmt.Errorf("the agent ended with status %d", t.Exit)
	case t.Failed != 0 || t.Sent == 0 || t.plan.requests != 0 && t.Sent != t.plan.requests:
		return fmt.Errorf("%d of %d requests failed", t.Failed, t.Sent)
	case t.Off > allowed || t.Lost != 0 && !t.plan.crowded:
		return fmt.Errorf("%d requests sent, %d counted, %d lost, off by %d: %s", t.Sent, t.Counted, t.Lost, t.Off, strings.Join(t.Wrong, "; "))
	case t.plan.crowded && t.Sent < fewest:
		return fmt.Errorf("only %d requests were answered: %d are the fewest that prove anything", t.Sent, fewest)
	case t.Lost*1000 > t.Sent:
		return fmt.Errorf("%d of %d requests were lost: more than one in a thousand", t.Lost, t.Sent)
	case t.spoilt != "":
		return errors.New(t.spoilt)
	case !t.Answers:
		return fmt.Errorf("the service does not answer after the agent has gone")
	case t.Private != nil && len(t.Private.Programs) != 0:
		return fmt.Errorf("private stacks: %v", t.Private.Programs)
	}
	return nil
}

func isReady() (bool, error) { return status(agentAddress, "/readyz") == http.StatusOK, nil }

func (t *trial) measure(services []*service, agent int, ended <-chan struct{}, started time.Time) error {
	if err := until(ended, isReady); err != nil {
		return fmt.Errorf("not ready: %v", err)
	}
	for _, s := range services {
		if err := until(ended, func() (bool, error) { return t.target(s.command.Process.Pid) }); err != nil {
			return fmt.Errorf("not measured: %v", err)
		}
	}
	t.Ready = time.Since(started).Seconds()
	if t.plan.crowded {
		found, err := stacksOf(strconv.Itoa(agent))
		if err != nil {
			return fmt.Errorf("the programs' images: %v", err)
		}
		t.Private = found
	}
	for _, step := range t.plan.steps {
		if err := t.load(step); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(5 * time.Second)
	for {
		if err := t.count(); err != nil {
			return fmt.Errorf("metrics: %v", err)
		}
		if t.Counted >= t.Sent || time.Now().After(deadline) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// target reads what /targets says of the service; true when it is measured.
func (t *trial) target(pid int) (bool, error) {
	body, err := get(agentAddress, "/targets")
	if err != nil {
		return false, err
	}
	var targets []struct {
		Pid      int    `json:"pid"`
		State    string `json:"state"`
		Reason   string `json:"reason"`
		Method   string `json:"attach_method"`
		Probes   []struct{ Attached bool }
		Disabled []map[string]any
		Lacks    []string `json:"kernel_lacks"`
	}
	if err := json.Unmarshal(body, &targets); err != nil {
		return false, fmt.Errorf("%v in %.200s", err, body)
	}
	for _, target := range targets {
		if target.Pid != pid {
			continue
		}
		t.Method, t.Lacks, t.Attached, t.Disabled = target.Method, target.Lacks, 0, []string{}
		for _, probe := range target.Probes {
			if probe.Attached {
				t.Attached++
			}
		}
		for _, disabled := range target.Disabled {
			t.Disabled = append(t.Disabled, fmt.Sprint(disabled["feature"], ": ", disabled["reason"]))
		}
		switch target.State {
		case "measured":
			return true, nil
		case "failed", "unsupported":
			return false, fmt.Errorf("%s: %s", target.State, target.Reason)
		}
	}
	return false, nil
}

// count reads from /metrics what the agent counted and compares it with what was sent.
func (t *trial) count() error {
	body, err := get(agentAddress, "/metrics")
	if err != nil {
		return err
	}
	counted, seconds := map[kind]int{}, map[string]float64{}
	t.Counted, t.Lost, t.Off, t.Wrong, t.spoilt = 0, 0, 0, []string{}, ""
	for _, line := range strings.Split(string(body), "\n") {
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		value, err := strconv.ParseFloat(line[at+1:], 64)
		if err != nil {
			return fmt.Errorf("no sample: %s", line)
		}
		switch line[:strings.IndexAny(line, "{ ")] {
		case "http_server_request_duration_seconds_count":
			of := kind{label(line, "instance_pid"), label(line, "http_request_method"), label(line, "http_response_status_code"),
				label(line, "http_route")}
			counted[of] += int(value)
			t.Counted += int(value)
		case "http_server_request_duration_seconds_sum":
			seconds[label(line, "instance_pid")] += value
		case "exporter_lost_total":
			t.Lost += int(value)
		}
	}
	for of, n := range t.sent {
		t.compare(of, n, counted[of])
	}
	for of, n := range counted {
		if _, known := t.sent[of]; !known {
			t.compare(of, 0, n)
		}
	}
	for pid, sum := range seconds {
		if t.plan.longest != 0 && !(sum > 0 && sum <= t.plan.longest) {
			t.spoilt = fmt.Sprintf("the requests of process %s took %g s together, of %g at most", pid, sum, t.plan.longest)
		}
	}
	return nil
}

func (t *trial) compare(of kind, sent, counted int) {
	if sent == counted {
		return
	}
	t.Off += max(sent-counted, counted-sent)
	if len(t.Wrong) < 20 {
		t.Wrong = append(t.Wrong, fmt.Sprintf("%v: %d sent, %d counted", of, sent, counted))
	}
}

// label is a label's value; none of those that are sent holds a quote.
func label(line, name string) string {
	_, rest, _ := strings.Cut(line, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

func until(ended <-chan struct{}, done func() (bool, error)) error {
	deadline := time.After(wait)
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ended:
			return fmt.Errorf("the agent has ended")
		case <-deadline:
			return fmt.Errorf("not within %s", wait)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

var client = http.Client{Timeout: 20 * time.Second}

func status(address, path string) int {
	answer, err := client.Get("http://" + address + path)
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode
}

func get(address, path string) ([]byte, error) {
	answer, err := client.Get("http://" + address + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}
