//go:build go1.19

package main

import (
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
)

// Each image of a process has another number.
const generation = "TRUTH_GENERATION"

// mark writes into the runtime which process this is, and which image of it, where it can be read from outside.
func mark() {
	if image, err := strconv.Atoi(os.Getenv(generation)); err == nil {
		debug.SetMemoryLimit(math.MaxInt64 - 1<<40 + int64(os.Getpid())<<12)
		debug.SetGCPercent(1000 + image)
	}
}

// runAnew replaces this process's image by another of the same program.
func runAnew() {
	image, _ := strconv.Atoi(os.Getenv(generation))
	os.Setenv(generation, strconv.Itoa(image+1))
	_ = syscall.Exec("/proc/self/exe", os.Args, os.Environ())
}
