package main

import (
	"net/http"

	"github.com/gorilla/mux"
)

func init() {
	routers["gorilla"] = byGorilla
}

func byGorilla(prefix string) http.Handler {
	root := mux.NewRouter().StrictSlash(true)
	root.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			pattern, _ := mux.CurrentRoute(r).GetPathTemplate()
			say(r, pattern)
			next.ServeHTTP(w, r)
		})
	}, recovering)
	r := root
	if prefix != "" {
		r = root.PathPrefix(prefix).Subrouter()
	}
	r.HandleFunc("/", answer).Methods("GET")
	r.HandleFunc("/hello/{name}", answer).Methods("GET")
	r.HandleFunc("/users/{id}/orders/{order}", answer).Methods("GET")
	r.PathPrefix("/files/").HandlerFunc(answer).Methods("GET")
	r.HandleFunc("/static/about", answer).Methods("GET")
	r.HandleFunc("/users", answer).Methods("POST")
	r.HandleFunc("/users/{id}", answer).Methods("DELETE")
	r.HandleFunc("/numbers/{id:[0-9]+}", answer).Methods("GET")
	r.HandleFunc("/slash/", answer).Methods("GET")
	r.HandleFunc("/fail", fail).Methods("GET")
	r.HandleFunc("/panic/{id}", func(http.ResponseWriter, *http.Request) { panic("on purpose") }).Methods("GET")
	r.HandleFunc("/batch/{id}", func(w http.ResponseWriter, r *http.Request) {
		ask(root, prefix+"/hello/inside")
		answer(w, r)
	}).Methods("GET")
	r.HandleFunc("/any", answer)
	v1 := r.PathPrefix("/api").Subrouter().PathPrefix("/v1").Subrouter()
	v1.HandleFunc("/items", answer).Methods("GET")
	v1.HandleFunc("/items/{id}", answer).Methods("GET")
	v1.PathPrefix("/admin").Subrouter().HandleFunc("/stats", answer).Methods("GET")
	r.PathPrefix("/sub").Subrouter().HandleFunc("/things/{id}", answer).Methods("GET")
	return root
}
