package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

// calls makes calls.
type calls struct {
	address, refused string
	secure           grpc.DialOption
	tally            *tally
	next             int64
	done             flagged
	stopped          chan struct{}
}

type flagged struct{ set int32 }

func (f *flagged) isSet() bool { return atomic.LoadInt32(&f.set) == 1 }

// all makes them, and says when the last is over.
func (c *calls) all() {
	// From here on the server's methods are known.
	first := c.dial(c.address, nil)
	for _, m := range echo.Methods {
		if m.MethodName != "Wait" && m.MethodName != "Gone" {
			c.unary(context.Background(), first, "/sample.Echo/"+m.MethodName, 0)
		}
	}
	var group sync.WaitGroup
	for i := 0; i < *concurrency; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			conn, refused := c.dial(c.address, nil), c.dial(c.refused, nil)
			for {
				n := atomic.AddInt64(&c.next, 1)
				if n > int64(*total) {
					return
				}
				c.one(conn, refused, int(n))
			}
		}()
	}
	group.Wait()
	atomic.StoreInt32(&c.done.set, 1)
}

type dialer func(context.Context, string) (net.Conn, error)

func (c *calls) dial(address string, by dialer) *grpc.ClientConn {
	options := []grpc.DialOption{c.secure, grpc.WithDefaultCallOptions(grpc.CallContentSubtype("raw"))}
	if by != nil {
		options = append(options, grpc.WithContextDialer(by))
	}
	conn, err := grpc.Dial(address, options...)
	if err != nil {
		panic(err)
	}
	return conn
}

// one makes the call with this number.
func (c *calls) one(conn, refused *grpc.ClientConn, n int) {
	ctx := context.Background()
	switch *mode {
	case "kills":
		c.kill()
		return
	case "methods":
		c.unary(ctx, conn, "/made.Up/M"+strconv.Itoa(n), 0)
		return
	case "apart":
		c.given(conn, "/sample.Echo/Apart", n)
		return
	}
	switch n % 25 {
	case 0, 1, 2, 3:
		c.unary(ctx, conn, "/sample.Echo/Code", n/25%17)
	case 4:
		c.unary(ctx, conn, "/sample.Echo/Code", 77)
	case 5:
		c.unary(ctx, conn, "/sample.Echo/Plain", 0)
	case 6:
		c.unary(ctx, conn, "/sample.Echo/None", 0)
	case 7:
		c.unary(ctx, conn, fmt.Sprintf("/made.Up%d/Other", n), 0)
	case 8:
		c.unary(ctx, conn, fmt.Sprintf("/malformed%d", n), 0)
	case 9:
		c.unary(ctx, refused, "/sample.Echo/Ok", 0)
	case 10:
		ctx, cancel := context.WithTimeout(ctx, 30*time.Millisecond)
		c.unary(ctx, conn, "/sample.Echo/Wait", 0)
		cancel()
	case 11:
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(30*time.Millisecond, cancel)
		c.unary(ctx, conn, "/sample.Echo/Wait", 0)
	case 12:
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		c.unary(ctx, conn, "/sample.Echo/Ok", 0)
	case 13:
		c.stream(ctx, conn, "Client", 10, 0)
	case 14:
		c.stream(ctx, conn, "Server", 1, 0)
	case 15, 16:
		c.stream(ctx, conn, "Both", 10, n/25%17)
	case 17:
		c.given(conn, "/sample.Echo/Both", n)
	case 18:
		c.stream(ctx, conn, "None", 1, 0)
	default:
		c.unary(ctx, conn, "/sample.Echo/Ok", 0)
	}
}

func (c *calls) unary(ctx context.Context, conn *grpc.ClientConn, method string, code int) {
	in, out := message{byte(code)}, message{}
	start := time.Now()
	err := conn.Invoke(ctx, method, &in, &out)
	c.tally.client.add(method, err, time.Since(start))
}

// stream sends so many messages, the last of which says how the server is to end, and reads to the end.
func (c *calls) stream(ctx context.Context, conn *grpc.ClientConn, name string, messages, code int) {
	start := time.Now()
	method := "/sample.Echo/" + name
	err := func() error {
		s, err := conn.NewStream(ctx, desc(name), method)
		if err != nil {
			return err
		}
		for i := 0; i < messages; i++ {
			m := message{byte(code)}
			if s.SendMsg(&m) != nil {
				break
			}
		}
		_ = s.CloseSend()
		for {
			if err := s.RecvMsg(new(message)); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}()
	c.tally.client.add(method, err, time.Since(start))
}

// given begins a stream and gives it up.
func (c *calls) given(conn *grpc.ClientConn, method string, n int) {
	ctx, cancel := context.WithCancel(context.Background())
	start := time.Now()
	s, err := conn.NewStream(ctx, desc("Both"), method)
	if err == nil {
		m := message{0}
		_ = s.SendMsg(&m)
		time.Sleep(time.Duration(15+n%3*10) * time.Millisecond)
		cancel()
		for err == nil {
			err = s.RecvMsg(new(message))
		}
	}
	cancel()
	c.tally.client.add(method, err, time.Since(start))
}

func desc(name string) *grpc.StreamDesc {
	return &grpc.StreamDesc{StreamName: name, ClientStreams: name != "Server", ServerStreams: name != "Client"}
}

// kill closes the connection of a call whose handler does not look, and makes one whose handler never returns.
func (c *calls) kill() {
	var last atomic.Value
	by := func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			last.Store(conn)
		}
		return conn, err
	}
	conn := c.dial(c.address, by)
	defer conn.Close()
	c.unary(context.Background(), conn, "/sample.Echo/Ok", 0)
	time.AfterFunc(50*time.Millisecond, func() { _ = last.Load().(net.Conn).Close() })
	c.unary(context.Background(), conn, "/sample.Echo/Deaf", 0)
	time.Sleep(300 * time.Millisecond)
	again := c.dial(c.address, nil)
	defer again.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	c.unary(ctx, again, "/sample.Echo/Gone", 0)
}

// hold opens a stream that stays open until it is released, and then is over well.
func (c *calls) hold() []byte {
	conn := c.dial(c.address, nil)
	s, err := conn.NewStream(context.Background(), desc("Both"), "/sample.Echo/Held")
	if err != nil {
		panic(err)
	}
	go func() {
		<-c.stopped
		_ = s.CloseSend()
		_ = s.RecvMsg(new(message))
	}()
	return []byte("ok\n")
}
