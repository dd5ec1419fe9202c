package main

import (
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
)

func init() {
	frameworks["grpc-gateway"] = byGateway
}

// byGateway registers handlers as the code does that protoc-gen-grpc-gateway makes.
func byGateway() http.Handler {
	gateway := runtime.NewServeMux()
	for _, route := range []struct{ method, pattern, rpc string }{
		{"GET", "/v1/items/{id}", "/shop.Items/Get"},
		{"GET", "/v1/items", "/shop.Items/List"},
		{"POST", "/v1/items", "/shop.Items/Create"},
	} {
		must(gateway, route.method, route.pattern, route.rpc)
	}
	return gateway
}

func must(gateway *runtime.ServeMux, method, pattern, rpc string) {
	handler := func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		if _, err := runtime.AnnotateContext(r.Context(), gateway, r, rpc, runtime.WithHTTPPathPattern(pattern)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		say(r, pattern)
		w.WriteHeader(http.StatusOK)
	}
	if err := gateway.HandlePath(method, pattern, handler); err != nil {
		panic(err)
	}
}
