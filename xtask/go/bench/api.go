package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// item is what the API serves.
type item struct {
	ID    int      `json:"id"`
	Name  string   `json:"name"`
	Tags  []string `json:"tags"`
	Price float64  `json:"price"`
}

// kinds are the API's collections: two routes each.
var kinds = []string{
	"users", "orders", "items", "carts", "prices", "stores", "reviews", "invoices", "shipments", "payments",
}

// api registers twenty routes. Ids from 1000 on do not exist.
func api(mux *http.ServeMux) {
	for _, kind := range kinds {
		mux.HandleFunc("GET /v1/"+kind, func(w http.ResponseWriter, _ *http.Request) {
			list := make([]item, 10)
			for i := range list {
				list[i] = newItem(kind, i)
			}
			answer(w, http.StatusOK, list)
		})
		mux.HandleFunc("GET /v1/"+kind+"/{id}", func(w http.ResponseWriter, r *http.Request) {
			id, err := strconv.Atoi(r.PathValue("id"))
			if err != nil || id >= 1000 {
				answer(w, http.StatusNotFound, map[string]string{"error": "no such " + kind})
				return
			}
			answer(w, http.StatusOK, newItem(kind, id))
		})
	}
}

func newItem(kind string, id int) item {
	return item{ID: id, Name: fmt.Sprintf("%s-%d", kind, id), Tags: []string{"a", "b", kind}, Price: float64(id) * 1.25}
}

func answer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value)
}
