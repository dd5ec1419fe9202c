// The part of an API server that the metrics-api asks: very many pods by their metadata, and nothing else. For the benchmark
// alone, where a real one would take longer to fill than to measure.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"time"
)

type object = map[string]interface{}

func main() {
	agents := flag.Int("agents", 1000, "agents")
	pods := flag.Int("pods", 100, "pods of each")
	namespaces := flag.Int("namespaces", 1000, "namespaces that they are spread over")
	flag.Parse()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())

	http.HandleFunc("/api/v1/pods", func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		if query.Get("watch") != "" {
			hold(w, r)
			return
		}
		all := *agents * *pods
		from, _ := strconv.Atoi(query.Get("continue"))
		limit, _ := strconv.Atoi(query.Get("limit"))
		to := all
		if limit > 0 && from+limit < all {
			to = from + limit
		}
		metadata := object{"resourceVersion": "1"}
		if to < all {
			metadata["continue"] = strconv.Itoa(to)
		}
		items := make([]object, 0, to-from)
		for i := from; i < to; i++ {
			namespace := fmt.Sprintf("ns-%d", i%*namespaces)
			items = append(items, object{"metadata": object{
				"namespace": namespace, "name": fmt.Sprintf("pod-%d-%d", i / *pods, i%*pods), "uid": strconv.Itoa(i), "resourceVersion": "1",
				"labels": object{"app": "app-" + namespace, "pod-template-hash": "6658cb9566", "app.kubernetes.io/part-of": "fleet"},
			}})
		}
		reply(w, 200, object{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
	})
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			// Read before the answer begins: what is left of it then, the server takes away.
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			_, _ = w.Write(body)
		case r.URL.Query().Get("watch") != "":
			hold(w, r)
		case r.URL.Path == "/api/v1/namespaces/kube-system/configmaps":
			reply(w, 200, object{"kind": "ConfigMapList", "apiVersion": "v1", "metadata": object{"resourceVersion": "1"}, "items": []object{}})
		default:
			reply(w, 404, object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "not found", "code": 404})
		}
	})
	log.Fatal(http.Serve(listener, nil))
}

// A watch that nothing happens in.
func hold(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.(http.Flusher).Flush()
	seconds, _ := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	select {
	case <-r.Context().Done():
	case <-time.After(time.Duration(seconds) * time.Second):
	}
}

func reply(w http.ResponseWriter, status int, body object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
