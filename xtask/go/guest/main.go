// Command guest is the init process of the virtual machines of `cargo xtask vm`: it mounts what the agent needs, runs the
// agent with one set of capabilities after the other until one is enough, sends requests, and prints one line of JSON
// about what was counted. Where the kernel's command line has `gopulse.crowded=SECONDS`, it does so once more with two
// services that share one CPU. As `guest stacks PID` it looks at the programs of an agent on any machine.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	bootMarker   = "GOPULSE-VM-BOOTED "
	resultMarker = "GOPULSE-VM-RESULT "
	// tcsbrk is TCSBRK of include/uapi/asm-generic/ioctls.h.
	tcsbrk = 0x5409
)

// crowded is the parameter of the kernel's command line that asks for a load of that many seconds on two services that
// share a CPU.
const crowded = "gopulse.crowded="

// result is what the host is told.
type result struct {
	Kernel string `json:"kernel"`
	// Preempts is the mode that the kernel preempts in, as debugfs has it; without debugfs's word what the version says,
	// PREEMPT or PREEMPT_DYNAMIC or nothing.
	Preempts string  `json:"preempts"`
	Error    string  `json:"error,omitempty"`
	Trials   []trial `json:"trials"`
	// Clients are programs that make requests, over HTTP/1.1 and over HTTP/2.
	Clients []calls `json:"clients"`
	// Crowded is the run with two services on one CPU, if it was asked for.
	Crowded *trial `json:"crowded,omitempty"`
}

func main() {
	// The bounding set belongs to a thread, and exec keeps the calling thread's.
	runtime.LockOSThread()
	if len(os.Args) > 2 && os.Args[1] != "" && os.Getpid() != 1 {
		if err := command(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, "guest:", err)
			os.Exit(125)
		}
		return
	}
	r := result{Trials: []trial{}}
	if err := run(&r); err != nil {
		r.Error = err.Error()
	}
	// What the kernel says from here on would stand in the middle of the line.
	_ = os.WriteFile("/proc/sys/kernel/printk", []byte("1"), 0)
	line, err := json.Marshal(r)
	if err != nil {
		line = []byte("{}")
	}
	fmt.Printf("\n%s%s\n", resultMarker, line)
	// What is still in the serial line's buffer would be lost: tcdrain(3).
	_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, 1, tcsbrk, 1)
	time.Sleep(300 * time.Millisecond)
	syscall.Sync()
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

// command is what this program does where it is not the init process.
func command(name, argument string, rest []string) error {
	switch name {
	case "with":
		return with(argument, rest)
	case "on":
		return on(argument, rest)
	case "stacks":
		found, err := stacksOf(argument)
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(found)
	}
	return fmt.Errorf("no command %q", name)
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
	r.Preempts = preempts()
	fmt.Printf("\n%s%s\n", bootMarker, r.Kernel)
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback: %v", err)
	}
	s, err := startService(exec.Command("/service", "-h2c", "-"))
	if err != nil {
		return err
	}
	var enough []string
	for _, capabilities := range lists {
		t := try([]*service{s}, capabilities, plain(s))
		r.Trials = append(r.Trials, t)
		if t.Error == "" {
			enough = capabilities
			break
		}
	}
	if enough != nil {
		r.Clients = []calls{call(enough), call(enough, "-http2")}
	}
	if seconds := parameter(crowded); seconds != "" && enough != nil {
		return crowd(r, enough, seconds)
	}
	return nil
}

// crowd has the agent measure two services that share a CPU, so that the kernel takes it from one in the middle of a
// program and gives it to the other.
func crowd(r *result, capabilities []string, seconds string) error {
	length, err := strconv.ParseFloat(seconds, 64)
	if err != nil {
		return fmt.Errorf("%s%s: %v", crowded, seconds, err)
	}
	var services []*service
	for i := 0; i < 2; i++ {
		s, err := startService(exec.Command("/proc/self/exe", "on", "0", "/service", "-h2c", "-", "-https", "-"))
		if err != nil {
			return err
		}
		services = append(services, s)
	}
	t := try(services, capabilities, together(services, length))
	r.Crowded = &t
	return nil
}

// preempts is how the kernel preempts.
func preempts() string {
	// `none voluntary (full) lazy`; since Linux 5.13, where the mode can be chosen at all.
	mode, _ := os.ReadFile("/sys/kernel/debug/sched/preempt")
	if _, chosen, known := strings.Cut(string(mode), "("); known {
		chosen, _, _ = strings.Cut(chosen, ")")
		return chosen
	}
	// `#1 SMP PREEMPT Debian 7.2.13-1 (2026-10-28)`
	version, _ := os.ReadFile("/proc/sys/kernel/version")
	for _, word := range strings.Fields(string(version)) {
		if strings.HasPrefix(word, "PREEMPT") {
			return word
		}
	}
	return ""
}

// parameter is what follows a name on the kernel's command line.
func parameter(name string) string {
	line, _ := os.ReadFile("/proc/cmdline")
	for _, word := range strings.Fields(string(line)) {
		if strings.HasPrefix(word, name) {
			return word[len(name):]
		}
	}
	return ""
}

// service is the measured program.
type service struct {
	command *exec.Cmd
	// Where it listens, by kind: http, https, admin.
	at map[string]any
}

func (s *service) pid() string {
	return strconv.Itoa(s.command.Process.Pid)
}

func (s *service) address(kind string) string {
	return fmt.Sprint(s.at[kind])
}

func startService(command *exec.Cmd) (*service, error) {
	s := &service{command: command}
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
