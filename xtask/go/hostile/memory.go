package main

// A program that lies about its own runtime, in its own memory: /poke?address=N&value=N stores a word there, once a
// millisecond; /page is the address of a page of zeros, and /silent that of one that never answers who reads it.

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

const (
	pageSize    = 4096
	userfaultfd = 323
	// include/uapi/linux/userfaultfd.h.
	uffdAPI         = 0xaa
	uffdIoctlAPI    = 0xc018aa3f
	uffdRegister    = 0xc020aa00
	uffdModeMissing = 1
)

var (
	pokesLock sync.Mutex
	pokes     = map[uintptr]uint64{}
	poking    sync.Once
)

func init() {
	http.HandleFunc("/poke", poke)
	http.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) {
		page, err := anonymous()
		answer(w, page, err)
	})
	http.HandleFunc("/silent", func(w http.ResponseWriter, _ *http.Request) {
		page, err := silent()
		answer(w, page, err)
	})
}

func answer(w http.ResponseWriter, address uintptr, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	_, _ = fmt.Fprintf(w, "%d\n", address)
}

// poke stores a word once a millisecond, since the runtime stores the truth now and then.
func poke(w http.ResponseWriter, r *http.Request) {
	address, err := strconv.ParseUint(r.URL.Query().Get("address"), 10, 64)
	if err == nil {
		var value uint64
		value, err = strconv.ParseUint(r.URL.Query().Get("value"), 10, 64)
		pokesLock.Lock()
		pokes[uintptr(address)] = value
		pokesLock.Unlock()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	store()
	poking.Do(func() {
		go func() {
			for ; ; time.Sleep(time.Millisecond) {
				store()
			}
		}()
	})
	_, _ = w.Write([]byte("done\n"))
}

func store() {
	pokesLock.Lock()
	defer pokesLock.Unlock()
	for address, value := range pokes {
		atomic.StoreUint64(*(**uint64)(unsafe.Pointer(&address)), value)
	}
}

func anonymous() (uintptr, error) {
	page, _, errno := syscall.Syscall6(syscall.SYS_MMAP, 0, 16*pageSize,
		syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON, ^uintptr(0), 0)
	if errno != 0 {
		return 0, errno
	}
	return page, nil
}

// silent is memory whose first use waits for somebody who never comes.
func silent() (uintptr, error) {
	page, err := anonymous()
	if err != nil {
		return 0, err
	}
	number := uintptr(userfaultfd)
	if runtime.GOARCH == "arm64" {
		number = 282
	}
	fd, _, errno := syscall.Syscall(number, syscall.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("userfaultfd: %w", errno)
	}
	api := [3]uint64{uffdAPI}
	if _, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, uffdIoctlAPI, uintptr(unsafe.Pointer(&api))); errno != 0 {
		return 0, fmt.Errorf("userfaultfd: %w", errno)
	}
	register := [4]uint64{uint64(page), 16 * pageSize, uffdModeMissing}
	if _, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, uffdRegister, uintptr(unsafe.Pointer(&register))); errno != 0 {
		return 0, fmt.Errorf("userfaultfd: %w", errno)
	}
	return page, nil
}
