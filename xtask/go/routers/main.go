// Command routers serves by routers that are not http.ServeMux, one or two at a time, and counts requests by the pattern that the
// router itself says it has matched.
package main

import (
	"flag"
	"log"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"sample/self"
)

// said is the header of a request in which a router's middleware leaves the pattern: all copies of a request share it.
const said = "Pattern-Said"

func say(r *http.Request, pattern string) {
	r.Header[said] = []string{pattern}
}

// routers make the handlers that it can serve by, by name; patterns begin with what they are given.
var routers = map[string]func(prefix string) http.Handler{}

// answer is that of all handlers.
func answer(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte("ok\n"))
}

func fail(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "failed", http.StatusInternalServerError)
}

// unread is where the answer to a request goes that a handler has made up.
type unread http.Header

func (u unread) Header() http.Header         { return http.Header(u) }
func (u unread) Write(b []byte) (int, error) { return len(b), nil }
func (u unread) WriteHeader(int)             {}

// ask gives a router a request that no client has sent, as batches do.
func ask(router http.Handler, path string) {
	r, err := http.NewRequest("GET", path, nil)
	if err != nil {
		panic(err)
	}
	router.ServeHTTP(unread{}, r)
}

// within puts what people put there before a router.
func within(how string, router http.Handler) http.Handler {
	switch how {
	case "":
		return router
	case "stripped":
		return http.StripPrefix("/svc/a", router)
	case "timed":
		return http.TimeoutHandler(router, time.Minute, "too late")
	case "slow":
		// As an access log does that flushes: the router's context is in its pool by then, and another's.
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			router.ServeHTTP(w, r)
			time.Sleep(2 * time.Millisecond)
		})
	case "mux":
		mux := http.NewServeMux()
		mux.Handle("/", router)
		return mux
	case "stripping-mux":
		mux := http.NewServeMux()
		mux.Handle("/svc/a/", http.StripPrefix("/svc/a", router))
		return mux
	}
	log.Fatalf("there is no way %q", how)
	return nil
}

// replacing serves by a router that each request to /reload replaces by another with other patterns.
func replacing(router func(string) http.Handler) http.Handler {
	var current atomic.Value
	current.Store(router(""))
	generation := 0
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/reload" {
			generation++
			current.Store(router("/v" + strings.Repeat("i", generation)))
			runtime.GC()
			runtime.GC()
			answer(w, r)
			return
		}
		current.Load().(http.Handler).ServeHTTP(w, r)
	})
}

func main() {
	as := flag.String("as", "gin", "the router, or two: gin+chi serves what begins with /two by the second")
	in := flag.String("in", "", "what is before it: stripped, timed, slow, mux, stripping-mux, or replaced for a router that is replaced")
	flag.Parse()
	names := strings.Split(*as, "+")
	router, known := routers[names[0]]
	if !known {
		log.Fatalf("there is no router %q", *as)
	}
	var handler http.Handler
	if *in == "replaced" {
		handler = replacing(router)
	} else {
		handler = within(*in, router(""))
	}
	if len(names) == 2 {
		first, second := handler, routers[names[1]]("/two")
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/two/") {
				second.ServeHTTP(w, r)
				return
			}
			first.ServeHTTP(w, r)
		})
	}
	counter := self.NewCounter()
	counter.RouteOf = func(r *http.Request) string {
		pattern := r.Header.Get(said)
		if pattern != "" && strings.HasPrefix(*in, "strip") {
			return "/svc/a" + pattern
		}
		if pattern == "" && r.URL.Path == "/reload" {
			return "/reload"
		}
		return pattern
	}
	self.Serve(counter.Wrap(handler), self.Options{Counter: counter})
}
