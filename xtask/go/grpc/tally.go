package main

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

type key struct {
	method string
	code   uint32
}

type sum struct {
	count   uint64
	seconds float64
}

type sums struct {
	mu sync.Mutex
	of map[key]*sum
}

// tally counts what handlers returned and what callers saw.
type tally struct {
	server, client sums
}

func newTally() *tally {
	return &tally{sums{of: map[key]*sum{}}, sums{of: map[key]*sum{}}}
}

func (s *sums) add(method string, err error, took time.Duration) {
	k := key{strings.TrimPrefix(method, "/"), uint32(status.Code(err))}
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.of[k]
	if one == nil {
		one = &sum{}
		s.of[k] = one
	}
	one.count++
	one.seconds += took.Seconds()
}

type entry struct {
	Method  string  `json:"method"`
	Code    uint32  `json:"code"`
	Count   uint64  `json:"count"`
	Seconds float64 `json:"seconds"`
}

func (s *sums) entries() []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries := []entry{}
	for k, one := range s.of {
		entries = append(entries, entry{k.method, k.code, one.count, one.seconds})
	}
	return entries
}

// call is what is known of one that the server has.
type call struct {
	method string
	begun  bool
}

type ofCall struct{}

func begin(ctx context.Context) {
	if c, ok := ctx.Value(ofCall{}).(*call); ok {
		c.begun = true
	}
}

func (t *tally) unary(ctx context.Context, in interface{}, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (interface{}, error) {
	begin(ctx)
	start := time.Now()
	out, err := next(ctx, in)
	t.server.add(info.FullMethod, err, time.Since(start))
	return out, err
}

func (t *tally) stream(srv interface{}, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	begin(s.Context())
	start := time.Now()
	err := next(srv, s)
	t.server.add(info.FullMethod, err, time.Since(start))
	return err
}

// unheard counts calls that end before their handler is called: the caller's deadline can be over as its message is read.
type unheard struct{ t *tally }

func (unheard) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, ofCall{}, &call{method: info.FullMethodName})
}

func (u unheard) HandleRPC(ctx context.Context, s stats.RPCStats) {
	end, isEnd := s.(*stats.End)
	c, isTagged := ctx.Value(ofCall{}).(*call)
	if isEnd && isTagged && !c.begun {
		u.t.server.add(c.method, end.Error, end.EndTime.Sub(end.BeginTime))
	}
}

func (unheard) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (unheard) HandleConn(context.Context, stats.ConnStats) {}
