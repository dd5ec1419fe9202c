package main

import (
	"fmt"
	"net/http"
)

// deep recurses ?depth= calls down, so that the goroutine's stack grows and is copied, and answers with a checksum that
// a wrong copy would change: sum of i*i for i up to depth, modulo 1000003, made through pointers into the stack.
func deep(w http.ResponseWriter, r *http.Request) {
	depth := number(r, "depth", 1000)
	if depth < 0 || depth > 1000000 {
		http.Error(w, "depth is out of range", http.StatusBadRequest)
		return
	}
	var sum uint64
	recurse(uint64(depth), &sum)
	pause(r)
	fmt.Fprintf(w, "%d\n", sum)
}

//go:noinline
func recurse(n uint64, sum *uint64) {
	// Enough stack for each call, checked after the calls below it have grown the stack.
	var frame [16]uint64
	for i := range frame {
		frame[i] = n + uint64(i)
	}
	if n > 0 {
		recurse(n-1, sum)
	}
	for i := range frame {
		if frame[i] != n+uint64(i) {
			panic("the stack was damaged")
		}
	}
	*sum = (*sum + frame[0]*frame[0]) % 1000003
}
