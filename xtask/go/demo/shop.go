package main

import (
	"encoding/json"
	"io"
	"math/rand"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

type order struct {
	ID     int    `json:"id"`
	Item   string `json:"item"`
	Amount int    `json:"amount"`
}

// shop keeps its first orders and the newest ones; those between are forgotten.
type shop struct {
	mu     sync.RWMutex
	next   int
	orders map[int]order
}

const kept = 1000

func newShop() *shop {
	s := &shop{orders: map[int]order{}}
	for range [kept]struct{}{} {
		s.add(order{Item: "book", Amount: 1 + rand.Intn(5)})
	}
	return s
}

func (s *shop) add(o order) order {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	o.ID = s.next
	s.orders[o.ID] = o
	if old := o.ID - kept; old > kept {
		delete(s.orders, old)
	}
	return o
}

func (s *shop) find(r *http.Request) (order, bool) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil {
		return order{}, false
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.orders[id]
	return o, ok
}

func (s *shop) list(w http.ResponseWriter, _ *http.Request) {
	think(2 * time.Millisecond)
	s.mu.RLock()
	page := make([]order, 0, 20)
	for _, o := range s.orders {
		if len(page) == cap(page) {
			break
		}
		page = append(page, o)
	}
	s.mu.RUnlock()
	answer(w, http.StatusOK, page)
}

func (s *shop) create(w http.ResponseWriter, r *http.Request) {
	var o order
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err == nil && len(body) > 0 {
		err = json.Unmarshal(body, &o)
	}
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	think(5 * time.Millisecond)
	if rand.Intn(50) == 0 {
		problem(w, http.StatusInternalServerError, "the payment service did not answer")
		return
	}
	answer(w, http.StatusCreated, s.add(o))
}

func (s *shop) get(w http.ResponseWriter, r *http.Request) {
	think(time.Millisecond)
	o, ok := s.find(r)
	if !ok {
		problem(w, http.StatusNotFound, "no such order")
		return
	}
	answer(w, http.StatusOK, o)
}

func (s *shop) cancel(w http.ResponseWriter, r *http.Request) {
	think(3 * time.Millisecond)
	o, ok := s.find(r)
	if !ok {
		problem(w, http.StatusNotFound, "no such order")
		return
	}
	s.mu.Lock()
	delete(s.orders, o.ID)
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (s *shop) search(w http.ResponseWriter, r *http.Request) {
	think(8 * time.Millisecond)
	wanted := strings.ToLower(r.URL.Query().Get("q"))
	found := []order{}
	s.mu.RLock()
	for _, o := range s.orders {
		if strings.Contains(strings.ToLower(o.Item), wanted) && len(found) < 10 {
			found = append(found, o)
		}
	}
	s.mu.RUnlock()
	answer(w, http.StatusOK, found)
}

// report is the endpoint that everybody complains about.
func (s *shop) report(w http.ResponseWriter, _ *http.Request) {
	think(150 * time.Millisecond)
	s.mu.RLock()
	count, sum := len(s.orders), 0
	for _, o := range s.orders {
		sum += o.Amount
	}
	s.mu.RUnlock()
	answer(w, http.StatusOK, map[string]int{"orders": count, "items": sum})
}
