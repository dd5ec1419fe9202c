package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

const prCapbsetDrop = 24

var numbers = map[string]uintptr{"SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_RESOURCE": 24, "PERFMON": 38, "BPF": 39}

// lists are the sets of capabilities that are tried, the smallest first.
var lists = [][]string{
	{"BPF", "PERFMON", "SYS_PTRACE"},
	{"BPF", "PERFMON", "SYS_PTRACE", "SYS_RESOURCE"},
	{"SYS_ADMIN", "SYS_PTRACE"},
	{"SYS_ADMIN", "SYS_PTRACE", "SYS_RESOURCE"},
}

// with replaces this process by a program that has these capabilities alone: a program of the user root gets what the
// bounding set leaves.
func with(list string, command []string) error {
	keep := map[uintptr]bool{}
	for _, name := range strings.Split(list, ",") {
		number, known := numbers[name]
		if !known {
			return fmt.Errorf("no capability %q", name)
		}
		keep[number] = true
	}
	for number := uintptr(0); ; number++ {
		if keep[number] {
			continue
		}
		_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prCapbsetDrop, number, 0)
		if errno == syscall.EINVAL {
			break // the kernel's last one
		}
		if errno != 0 {
			return errno
		}
	}
	return syscall.Exec(command[0], command, os.Environ())
}

// on replaces this process by a program that runs on one CPU alone, with all its threads.
func on(cpu string, command []string) error {
	number, err := strconv.Atoi(cpu)
	if err != nil || number < 0 || number > 63 || len(command) == 0 {
		return fmt.Errorf("on CPU COMMAND, not on %q %q", cpu, command)
	}
	mask := uint64(1) << number
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if errno != 0 {
		return fmt.Errorf("CPU %d: %v", number, errno)
	}
	return syscall.Exec(command[0], command, os.Environ())
}
