package self

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Options are what a service has its own way of doing.
type Options struct {
	// Counter is shown on the admin port.
	Counter *Counter
	// Pages are further pages of the admin port.
	Pages map[string]Page
	// ConfigureTLS prepares the server of the https port; nil leaves HTTP/2 to net/http.
	ConfigureTLS func(*http.Server) error
	// ConfigureH2C prepares the server of the h2c port; nil leaves it to net/http, which can from Go 1.24 on.
	ConfigureH2C func(*http.Server) error
}

var (
	httpAddress  = flag.String("http", "127.0.0.1:0", "address for HTTP/1.1, or - for none")
	httpsAddress = flag.String("https", "127.0.0.1:0", "address for HTTPS with HTTP/2, or - for none")
	h2cAddress   = flag.String("h2c", "127.0.0.1:0", "address for HTTP/2 in the clear where there is support, or - for none")
	adminAddress = flag.String("admin", "127.0.0.1:0", "address for the service's own counts, or - for none")
)

// Serve serves h until SIGTERM or SIGINT. When all ports are open it prints one line of JSON that says where they are.
func Serve(h http.Handler, o Options) {
	where := map[string]interface{}{"pid": os.Getpid()}
	var servers []*http.Server

	open := func(kind, address string) net.Listener {
		if address == "-" {
			return nil
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			log.Fatal(err)
		}
		where[kind] = l.Addr().String()
		return l
	}
	start := func(srv *http.Server, serve func() error) {
		servers = append(servers, srv)
		go func() {
			if err := serve(); err != http.ErrServerClosed {
				log.Fatal(err)
			}
		}()
	}

	if l := open("http", *httpAddress); l != nil {
		srv := newServer(h)
		start(srv, func() error { return srv.Serve(l) })
	}
	if l := open("https", *httpsAddress); l != nil {
		srv := newServer(h)
		cert, err := certificate()
		if err != nil {
			log.Fatal(err)
		}
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
		if o.ConfigureTLS != nil {
			if err := o.ConfigureTLS(srv); err != nil {
				log.Fatal(err)
			}
		}
		start(srv, func() error { return srv.ServeTLS(l, "", "") })
	}
	configureH2C := o.ConfigureH2C
	if configureH2C == nil {
		configureH2C = standardH2C
	}
	if configureH2C != nil {
		if l := open("h2c", *h2cAddress); l != nil {
			srv := newServer(h)
			if err := configureH2C(srv); err != nil {
				log.Fatal(err)
			}
			start(srv, func() error { return srv.Serve(l) })
		}
	}
	if l := open("admin", *adminAddress); l != nil {
		go serveAdmin(l, o.pages())
	}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if err := json.NewEncoder(os.Stdout).Encode(where); err != nil {
		log.Fatal(err)
	}
	<-stop
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, srv := range servers {
		_ = srv.Shutdown(ctx)
	}
}

func newServer(h http.Handler) *http.Server {
	// What panics and aborts log is expected here, and would drown what is not.
	quiet := log.New(quietWriter{}, "", 0)
	return &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second, ErrorLog: quiet}
}

type quietWriter struct{}

func (quietWriter) Write(b []byte) (int, error) {
	if os.Getenv("SAMPLE_LOG") != "" {
		return os.Stderr.Write(b)
	}
	return len(b), nil
}

func (o Options) pages() map[string]Page {
	pages := map[string]Page{}
	for path, page := range o.Pages {
		pages[path] = page
	}
	if c := o.Counter; c != nil {
		pages["/_self"] = func() (string, []byte) { return "application/json", c.JSON() }
		pages["/_reset"] = func() (string, []byte) { c.Reset(); return "text/plain", []byte("ok\n") }
		pages["/_active"] = func() (string, []byte) {
			text, _ := json.Marshal(c.Active())
			return "application/json", append(text, '\n')
		}
	}
	return pages
}
