package main

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"runtime"
	"syscall"
	"unsafe"
)

// Functions of its own that are replaced in memory, as libraries for mocks and hooks do it: /patch?of=NAME, and /unpatch puts back
// the bytes that were there.

// saved is code that was replaced.
type saved struct {
	at   uintptr
	code []byte
}

// patched is what /unpatch puts back, by the function's name.
var patched = map[string]saved{}

// replacements are jumped to by their closure, as Go calls functions.
var replacements = map[string]interface{}{
	"runtime.Goexit":                   func() { fmt.Fprintln(os.Stderr, "goexit") },
	"net/http.(*ServeMux).ServeHTTP":   replacedMux,
	"net/http.serverHandler.ServeHTTP": replacedServe,
}

func replacedMux(_ *http.ServeMux, w http.ResponseWriter, r *http.Request) { dispatch(w, r) }

// A serverHandler is a struct of one pointer.
func replacedServe(_ *http.Server, w http.ResponseWriter, r *http.Request) { dispatch(w, r) }

func dispatch(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/unpatch":
		unpatch(w, r)
	case "/goexit":
		goexit(w, r)
	default:
		_, _ = w.Write([]byte("replaced\n"))
	}
}

// entry is where a function of this program begins: those that no other package can name are looked for among the callers.
func entry(name string) uintptr {
	switch name {
	case "runtime.Goexit":
		return reflect.ValueOf(runtime.Goexit).Pointer()
	case "net/http.(*ServeMux).ServeHTTP":
		return reflect.ValueOf((*http.ServeMux).ServeHTTP).Pointer()
	}
	callers := make([]uintptr, 64)
	for _, pc := range callers[:runtime.Callers(0, callers)] {
		if f := runtime.FuncForPC(pc - 1); f != nil && f.Name() == name {
			return f.Entry()
		}
	}
	return 0
}

func patch(name string) bool {
	from := entry(name)
	replacement := replacements[name]
	if _, is := patched[name]; from == 0 || replacement == nil || is {
		return false
	}
	closure := (*[2]uintptr)(unsafe.Pointer(&replacement))[1]
	patched[name] = saved{from, overwrite(from, jump(closure))}
	return true
}

// jump goes to a closure's code with the closure in the context register.
func jump(closure uintptr) []byte {
	if runtime.GOARCH == "amd64" {
		// mov $closure,%rdx; jmp *(%rdx)
		code := append([]byte{0x48, 0xba}, make([]byte, 8)...)
		binary.LittleEndian.PutUint64(code[2:], uint64(closure))
		return append(code, 0xff, 0x22)
	}
	// movz and movk x26; ldr x16,[x26]; br x16
	var code []byte
	word := func(of uint32) { code = append(code, byte(of), byte(of>>8), byte(of>>16), byte(of>>24)) }
	for i, move := range []uint32{0xd2800000, 0xf2a00000, 0xf2c00000, 0xf2e00000} {
		word(move | uint32(closure>>(16*uint(i))&0xffff)<<5 | 26)
	}
	word(0xf9400350)
	word(0xd61f0200)
	return code
}

// overwrite returns what was there.
func overwrite(at uintptr, code []byte) []byte {
	page := uintptr(os.Getpagesize())
	from := at &^ (page - 1)
	length := (at + uintptr(len(code)) - from + page - 1) &^ (page - 1)
	there := *(*[]byte)(unsafe.Pointer(&struct {
		at       uintptr
		len, cap int
	}{at, len(code), len(code)}))
	protect(from, length, syscall.PROT_READ|syscall.PROT_WRITE|syscall.PROT_EXEC)
	was := append([]byte(nil), there...)
	copy(there, code)
	protect(from, length, syscall.PROT_READ|syscall.PROT_EXEC)
	return was
}

func protect(from, length uintptr, how uintptr) {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_MPROTECT, from, length, how); errno != 0 {
		panic(errno)
	}
}

func unpatch(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("of")
	was, is := patched[name]
	delete(patched, name)
	if is {
		overwrite(was.at, was.code)
	}
	fmt.Fprintln(w, is)
}

func goexit(w http.ResponseWriter, _ *http.Request) {
	done := make(chan int)
	go func() {
		defer close(done)
		runtime.Goexit()
	}()
	<-done
	_, _ = w.Write([]byte("done\n"))
}

func init() {
	http.HandleFunc("/patch", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, patch(r.URL.Query().Get("of")))
	})
	http.HandleFunc("/unpatch", unpatch)
	http.HandleFunc("/goexit", goexit)
}
