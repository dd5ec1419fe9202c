package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// A kernel from 6.13 on (arm64: 6.17) may give a program, and each function that it calls, a stack per CPU instead of the
// thread's own. Two threads of which one preempted the other write over each other's then. Whether it did is in the machine
// code alone: the address is made of one that is the same for all CPUs and the CPU's own offset.

// stacks is what the machine code of loaded programs says.
type stacks struct {
	// Given says that this kernel gives such stacks: a program made for it got one.
	Given bool `json:"given"`
	// Looked is how many of the process's programs were looked at.
	Looked int `json:"looked"`
	// Programs is how many such stacks each of them has, where it has any.
	Programs map[string]int `json:"programs"`
}

// The commands of bpf(2), and where its structures have what is used (include/uapi/linux/bpf.h).
const (
	progLoad       = 5
	progGetFDByID  = 13
	objGetInfoByFD = 15
	progTypeKprobe = 2
	infoJitedLen   = 16
	infoJitedInsns = 24
	infoName       = 64
	infoBytes      = 80
)

// addPerCPU is `add r9, gs:[...]` (arch/x86/net/bpf_jit_comp.c: emit_priv_frame_ptr).
var addPerCPU = []byte{0x65, 0x4c, 0x03, 0x0c, 0x25}

// kept makes what is assigned to it live on the heap, where nothing moves.
var kept []byte

// address is where a buffer is, as the kernel is told.
func address(buffer []byte) uint64 {
	kept = buffer
	return uint64(uintptr(unsafe.Pointer(&buffer[0])))
}

func bpf(command uintptr, attr []byte) (uintptr, error) {
	number := uintptr(321)
	if runtime.GOARCH == "arm64" {
		number = 280
	}
	result, _, errno := syscall.Syscall(number, command, uintptr(unsafe.Pointer(&attr[0])), uintptr(len(attr)))
	if errno != 0 {
		return 0, errno
	}
	return result, nil
}

// perCPU counts the places of machine code that make an address of this CPU's own memory.
func perCPU(architecture string, image []byte) int {
	if architecture == "amd64" {
		return bytes.Count(image, addPerCPU)
	}
	// mrs xN, tpidr_el1 or tpidr_el2, by arch/arm64/net/bpf_jit_comp.c: emit_percpu_ptr.
	count := 0
	for ; len(image) >= 4; image = image[4:] {
		switch binary.LittleEndian.Uint32(image) &^ 0x1f {
		case 0xd538d080, 0xd53cd040:
			count++
		}
	}
	return count
}

// image is the name and the machine code of a loaded program.
func image(fd uintptr) (string, []byte, error) {
	info := make([]byte, infoBytes)
	ask := func() error {
		attr := make([]byte, 16)
		binary.LittleEndian.PutUint32(attr, uint32(fd))
		binary.LittleEndian.PutUint32(attr[4:], infoBytes)
		binary.LittleEndian.PutUint64(attr[8:], address(info))
		_, err := bpf(objGetInfoByFD, attr)
		return err
	}
	if err := ask(); err != nil {
		return "", nil, err
	}
	length := binary.LittleEndian.Uint32(info[infoJitedLen:])
	name := string(bytes.TrimRight(info[infoName:], "\x00"))
	if length == 0 {
		return name, nil, errors.New("the kernel compiled no machine code of " + name)
	}
	code := make([]byte, length)
	clear(info)
	binary.LittleEndian.PutUint32(info[infoJitedLen:], length)
	binary.LittleEndian.PutUint64(info[infoJitedInsns:], address(code))
	if err := ask(); err != nil {
		return name, nil, err
	}
	if binary.LittleEndian.Uint64(info[infoJitedInsns:]) == 0 {
		return name, nil, errors.New("the kernel does not show machine code (kernel.kptr_restrict)")
	}
	return name, code, nil
}

// given loads a program with a frame of 128 bytes, which gets a stack per CPU where the kernel gives any.
func given() (bool, error) {
	program := []byte{
		0xb7, 0x00, 0, 0, 0, 0, 0, 0, // r0 = 0
		0x7b, 0x0a, 0x80, 0xff, 0, 0, 0, 0, // *(u64 *)(r10 - 128) = r0
		0x95, 0x00, 0, 0, 0, 0, 0, 0, // exit
	}
	license := []byte("GPL\x00")
	attr := make([]byte, 72)
	binary.LittleEndian.PutUint32(attr, progTypeKprobe)
	binary.LittleEndian.PutUint32(attr[4:], uint32(len(program)/8))
	binary.LittleEndian.PutUint64(attr[8:], address(program))
	binary.LittleEndian.PutUint64(attr[16:], address(license))
	fd, err := bpf(progLoad, attr)
	runtime.KeepAlive(program)
	runtime.KeepAlive(license)
	if err != nil {
		return false, fmt.Errorf("a program for comparison: %w", err)
	}
	defer syscall.Close(int(fd))
	_, code, err := image(fd)
	return perCPU(runtime.GOARCH, code) > 0, err
}

// stacksOf looks at every program that a process holds.
func stacksOf(pid string) (*stacks, error) {
	found := &stacks{Programs: map[string]int{}}
	var err error
	if found.Given, err = given(); err != nil {
		return nil, err
	}
	files, err := filepath.Glob("/proc/" + pid + "/fdinfo/*")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		_, rest, isProgram := strings.Cut(string(text), "\nprog_id:\t")
		id, _, _ := strings.Cut(rest, "\n")
		if err != nil || !isProgram || seen[id] {
			continue
		}
		seen[id] = true
		number, err := strconv.ParseUint(id, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: %v", file, err)
		}
		attr := make([]byte, 12)
		binary.LittleEndian.PutUint32(attr, uint32(number))
		fd, err := bpf(progGetFDByID, attr)
		if err != nil {
			return nil, fmt.Errorf("program %d: %w", number, err)
		}
		name, code, err := image(fd)
		_ = syscall.Close(int(fd))
		if err != nil {
			return nil, err
		}
		found.Looked++
		if count := perCPU(runtime.GOARCH, code); count > 0 {
			found.Programs[name] += count
		}
	}
	if found.Looked == 0 {
		return nil, fmt.Errorf("process %s holds no eBPF program", pid)
	}
	return found, nil
}
