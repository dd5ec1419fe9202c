package main

import (
	"context"
	"errors"
	"io"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
)

// raw sends messages as the bytes that they are, so that nothing has to be generated.
type raw struct{}

type message []byte

func (raw) Marshal(v interface{}) ([]byte, error) { return *v.(*message), nil }

func (raw) Unmarshal(data []byte, v interface{}) error {
	*v.(*message) = append(message(nil), data...)
	return nil
}

func (raw) Name() string { return "raw" }

func init() { encoding.RegisterCodec(raw{}) }

// work is what each call takes at least, so that what is around the handlers is little beside.
const work = 10 * time.Millisecond

type answer func(context.Context, message) error

var echo = grpc.ServiceDesc{
	ServiceName: "sample.Echo",
	HandlerType: (*interface{})(nil),
	Methods: []grpc.MethodDesc{
		method("Ok", func(context.Context, message) error { return nil }),
		method("Code", func(_ context.Context, m message) error { return status.Error(codes.Code(m[0]), "as asked") }),
		method("Plain", func(context.Context, message) error { return errors.New("no status") }),
		method("Wait", func(ctx context.Context, _ message) error { return wait(ctx) }),
		method("Deaf", func(context.Context, message) error {
			time.Sleep(200 * time.Millisecond)
			return nil
		}),
		method("Gone", func(context.Context, message) error {
			runtime.Goexit()
			return nil
		}),
	},
	Streams: []grpc.StreamDesc{
		{StreamName: "Client", Handler: receive, ClientStreams: true},
		{StreamName: "Server", Handler: send, ServerStreams: true},
		{StreamName: "Both", Handler: both, ClientStreams: true, ServerStreams: true},
		{StreamName: "Apart", Handler: apart, ClientStreams: true, ServerStreams: true},
		{StreamName: "Held", Handler: held, ClientStreams: true, ServerStreams: true},
	},
}

func method(name string, do answer) grpc.MethodDesc {
	handle := func(_ interface{}, ctx context.Context, decode func(interface{}) error, by grpc.UnaryServerInterceptor) (interface{}, error) {
		in := new(message)
		if err := decode(in); err != nil {
			return nil, err
		}
		handler := func(ctx context.Context, in interface{}) (interface{}, error) {
			time.Sleep(work)
			if err := do(ctx, *in.(*message)); err != nil {
				return nil, err
			}
			return in, nil
		}
		return by(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/sample.Echo/" + name}, handler)
	}
	return grpc.MethodDesc{MethodName: name, Handler: handle}
}

// wait waits until the caller has gone, or given up.
func wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-time.After(10 * time.Second):
		return status.Error(codes.Internal, "nobody gave up")
	}
}

func receive(_ interface{}, s grpc.ServerStream) error {
	time.Sleep(work)
	var last message
	for {
		m := new(message)
		if err := s.RecvMsg(m); err == io.EOF {
			return s.SendMsg(&last)
		} else if err != nil {
			return err
		}
		last = *m
	}
}

func send(_ interface{}, s grpc.ServerStream) error {
	time.Sleep(work)
	m := new(message)
	if err := s.RecvMsg(m); err != nil {
		return err
	}
	for i := 0; i < 20; i++ {
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
	return nil
}

// both answers each message, and ends as the first byte of the last says.
func both(_ interface{}, s grpc.ServerStream) error {
	time.Sleep(work)
	var last message
	for {
		m := new(message)
		if err := s.RecvMsg(m); err == io.EOF {
			return status.Error(codes.Code(last[0]), "as asked")
		} else if err != nil {
			return err
		}
		last = *m
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}

// apart receives on a goroutine of its own, and ends as that says.
func apart(_ interface{}, s grpc.ServerStream) error {
	time.Sleep(work)
	ended := make(chan error, 1)
	go func() {
		for {
			if err := s.RecvMsg(new(message)); err != nil {
				ended <- err
				return
			}
		}
	}()
	if err := <-ended; err != io.EOF {
		return err
	}
	return nil
}

// held goes on until the caller ends it.
func held(_ interface{}, s grpc.ServerStream) error {
	if err := s.RecvMsg(new(message)); err != io.EOF {
		return err
	}
	return nil
}
