package self

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"time"
)

// Page makes an answer of the admin port.
type Page func() (contentType string, body []byte)

// serveAdmin answers GET requests by hand: a second net/http server in the process would be measured like the first.
func serveAdmin(l net.Listener, pages map[string]Page) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go answer(conn, pages)
	}
}

func answer(conn net.Conn, pages map[string]Page) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil {
		return
	}
	for {
		header, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if strings.TrimSpace(header) == "" {
			break
		}
	}
	words := strings.Fields(line)
	status, contentType, body := "404 Not Found", "text/plain", []byte("not found\n")
	if len(words) > 1 && pages[words[1]] != nil {
		status = "200 OK"
		contentType, body = pages[words[1]]()
	}
	fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
		status, contentType, len(body))
	_, _ = conn.Write(body)
}
