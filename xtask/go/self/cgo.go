//go:build withcgo
// +build withcgo

package self

// static int answer(void) { return 42; }
import "C"

func init() {
	// The binary has to hold C code, as services with a C library have.
	if C.answer() != 42 {
		panic("C code does not work")
	}
}
