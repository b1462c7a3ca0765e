// Package cache keeps recent answers in memory.
package cache

import (
	"container/list"
	"sync"
	"time"
)

// Entry is one answer and the moment it stops being true.
type Entry[V any] struct {
	Value   V
	Expires time.Time
	size    int
	place   *list.Element
}

// Cache holds at most Limit entries and forgets the least recently used ones first.
// Its methods may be called from any goroutine.
type Cache[V any] struct {
	Limit   int
	mutex   sync.Mutex
	entries map[string]*Entry[V]
	recent  *list.List
}

// New makes an empty cache; a limit below one means one entry.
func New[V any](limit int) *Cache[V] {
	if limit < 1 {
		limit = 1
	}
	return &Cache[V]{Limit: limit, entries: make(map[string]*Entry[V]), recent: list.New()}
}

// Get returns the answer for a key, if it is there and has not expired.
//
// A hit makes the entry the most recent one.
func (c *Cache[V]) Get(key string) (value V, found bool) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	entry, ok := c.entries[key]
	if !ok || time.Now().After(entry.Expires) {
		return value, false
	}
	c.recent.MoveToFront(entry.place)
	return entry.Value, true
}

func (c *Cache[V]) Len() int { return len(c.entries) }

/* Evict drops entries until the limit holds again.
   The caller holds the mutex. */
func (c *Cache[V]) evict() (dropped int) {
	for len(c.entries) > c.Limit {
		oldest := c.recent.Back()
		if oldest == nil {
			break
		}
		c.recent.Remove(oldest)
		delete(c.entries, oldest.Value.(string))
		dropped++
	}
	return dropped
}

var shared = New[string](128)
