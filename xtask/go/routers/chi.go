package main

import (
	"net/http"

	"github.com/go-chi/chi/v5"
)

func init() {
	routers["chi"] = byChi
}

// recovering answers a panic by 500.
func recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func byChi(prefix string) http.Handler {
	root := chi.NewRouter()
	root.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			routing := chi.RouteContext(r.Context())
			pattern := routing.RoutePattern()
			if pattern == "" && len(routing.RoutePatterns) > 0 {
				// 5.0 trims the slash of the root, too.
				pattern = "/"
			}
			say(r, pattern)
		})
	}, recovering)
	routes := func(r chi.Router) {
		r.Get("/", answer)
		r.Get("/hello/{name}", answer)
		r.Get("/users/{id}/orders/{order}", answer)
		r.Get("/files/*", answer)
		r.Get("/static/about", answer)
		r.Post("/users", answer)
		r.Delete("/users/{id}", answer)
		r.Get("/numbers/{id:[0-9]+}", answer)
		r.Get("/slash/", answer)
		r.Get("/fail", fail)
		r.Get("/panic/{id}", func(http.ResponseWriter, *http.Request) { panic("on purpose") })
		r.Get("/batch/{id}", func(w http.ResponseWriter, r *http.Request) {
			ask(root, prefix+"/hello/inside")
			answer(w, r)
		})
		r.HandleFunc("/any", answer)
		r.Route("/api", func(r chi.Router) {
			r.Route("/v1", func(r chi.Router) {
				r.Get("/items", answer)
				r.Get("/items/{id}", answer)
				r.Route("/admin", func(r chi.Router) { r.Get("/stats", answer) })
			})
		})
		mounted := chi.NewRouter()
		mounted.Get("/things/{id}", answer)
		r.Mount("/sub", mounted)
	}
	if prefix == "" {
		routes(root)
	} else {
		root.Route(prefix, routes)
	}
	return root
}
