// Command guest is the init process of the virtual machines of `cargo xtask vm`: it mounts what the agent needs, runs the
// agent with one set of capabilities after the other until one is enough, sends requests, and prints one line of JSON
// about what was counted.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	bootMarker   = "GOPULSE-VM-BOOTED "
	resultMarker = "GOPULSE-VM-RESULT "
)

// result is what the host is told.
type result struct {
	Kernel string  `json:"kernel"`
	Error  string  `json:"error,omitempty"`
	Trials []trial `json:"trials"`
}

func main() {
	// The bounding set belongs to a thread, and exec keeps the calling thread's.
	runtime.LockOSThread()
	if len(os.Args) > 3 && os.Args[1] == "with" {
		fmt.Fprintln(os.Stderr, "guest:", with(os.Args[2], os.Args[3:]))
		os.Exit(125)
	}
	r := result{Trials: []trial{}}
	if err := run(&r); err != nil {
		r.Error = err.Error()
	}
	line, err := json.Marshal(r)
	if err != nil {
		line = []byte("{}")
	}
	fmt.Printf("\n%s%s\n", resultMarker, line)
	// What is still in the serial line's buffer would be lost.
	time.Sleep(300 * time.Millisecond)
	syscall.Sync()
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func run(r *result) error {
	for _, m := range [][2]string{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"},
		{"debugfs", "/sys/kernel/debug"}, {"tracefs", "/sys/kernel/tracing"}, {"bpf", "/sys/fs/bpf"},
	} {
		_ = os.MkdirAll(m[1], 0o755)
		// Initramfs kernels may have mounted devtmpfs by themselves.
		if err := syscall.Mount(m[0], m[1], m[0], 0, ""); err != nil && err != syscall.EBUSY {
			return fmt.Errorf("mount %s: %v", m[1], err)
		}
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return err
	}
	r.Kernel = strings.TrimSpace(string(release))
	fmt.Printf("\n%s%s\n", bootMarker, r.Kernel)
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback: %v", err)
	}
	s, err := startService()
	if err != nil {
		return err
	}
	for _, capabilities := range lists {
		t := try(s, capabilities)
		r.Trials = append(r.Trials, t)
		if t.Error == "" {
			break
		}
	}
	return nil
}

// service is the measured program.
type service struct {
	command *exec.Cmd
	// Where it listens, by kind: http, https, admin.
	at map[string]any
}

func (s *service) address(kind string) string {
	return fmt.Sprint(s.at[kind])
}

func startService() (*service, error) {
	s := &service{command: exec.Command("/service", "-h2c", "-")}
	s.command.Stderr = os.Stderr
	out, err := s.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("service: %v", err)
	}
	if err := json.NewDecoder(out).Decode(&s.at); err != nil {
		return nil, fmt.Errorf("service did not say where it listens: %v", err)
	}
	return s, nil
}

func loopbackUp() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var request struct {
		name  [16]byte
		flags uint16
		rest  [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	pointer := uintptr(unsafe.Pointer(&request))
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, pointer); errno != 0 {
		return errno
	}
	for i := 0; i < 100; i++ {
		if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
			return l.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("no address")
}
