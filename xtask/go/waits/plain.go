package main

import (
	"fmt"
	"log"
	"strings"
	"syscall"
)

// The control port is served by blocking system calls: the runtime's poller would park goroutines, and those would be measured.

func listen() (fd, port int) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		log.Fatal(err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		log.Fatal(err)
	}
	if err := syscall.Listen(fd, 16); err != nil {
		log.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		log.Fatal(err)
	}
	return fd, name.(*syscall.SockaddrInet4).Port
}

func accept(l int) (conn int, path string) {
	conn, _, err := syscall.Accept(l)
	if err != nil {
		return -1, ""
	}
	request := make([]byte, 4096)
	n := 0
	for !strings.Contains(string(request[:n]), "\r\n\r\n") {
		m, err := syscall.Read(conn, request[n:])
		if err != nil || m <= 0 {
			_ = syscall.Close(conn)
			return -1, ""
		}
		n += m
	}
	words := strings.Fields(string(request[:n]))
	if len(words) < 2 {
		_ = syscall.Close(conn)
		return -1, ""
	}
	return conn, words[1]
}

func reply(conn int, body []byte) {
	answer := fmt.Sprintf("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	_, _ = syscall.Write(conn, []byte(answer))
	_ = syscall.Close(conn)
}
