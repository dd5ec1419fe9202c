package main

import (
	"bufio"
	"io"
	"strconv"
	"strings"
	"sync"
)

// agentLog is what the agent writes to its standard error.
type agentLog struct {
	mutex sync.Mutex
	lines []string
}

func (l *agentLog) read(from io.Reader) {
	scanner := bufio.NewScanner(from)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		l.mutex.Lock()
		l.lines = append(l.lines, scanner.Text())
		l.mutex.Unlock()
	}
}

func (l *agentLog) tail(n int) []string {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.lines[max(len(l.lines)-n, 0):]
}

// verified reads the lines `loaded program="http_start" verified_instructions=Some(312)`.
func (l *agentLog) verified() map[string]int {
	found := map[string]int{}
	for _, line := range l.tail(1 << 30) {
		_, program, _ := strings.Cut(line, `program="`)
		_, number, some := strings.Cut(line, "verified_instructions=")
		if count, err := strconv.Atoi(strings.TrimSpace(number)); some && err == nil {
			found[program[:strings.IndexByte(program+`"`, '"')]] = count
		}
	}
	return found
}
