//go:build integration

package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/walship/walship/test/s3test"
)

// weather stands before an S3 server and answers for it, or keeps its answers
// back. What a gate does to connections, it does to requests.
type weather struct {
	mu    sync.Mutex
	state weatherState
	met   int // requests that didn't get the server's answer since the state was set
}

type weatherState int

const (
	weatherFair     weatherState = iota
	weatherSlowDown              // requests are answered 503
	weatherLost                  // requests go through; the answers to writes are lost
)

// newWeather puts weather before a server, and returns the server as seen
// through it.
func newWeather(t *testing.T, server *s3test.Server) (*weather, *s3test.Server) {
	t.Helper()
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which is signed
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { // the client was killed
			w.WriteHeader(http.StatusBadGateway)
		},
	}
	s := &weather{}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch s.strikes(r) {
		case weatherSlowDown:
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, `<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`)
		case weatherLost:
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler) // closes the connection
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(front.Close)
	through := *server
	through.Endpoint = front.URL
	return s, &through
}

// set changes what happens to requests.
func (s *weather) set(state weatherState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.met = state, 0
}

// struck is how many requests it has struck since the state was set.
func (s *weather) struck() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.met
}

// strikes says what happens to a request, and notes it.
func (s *weather) strikes(r *http.Request) weatherState {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == weatherFair || s.state == weatherLost && r.Method != http.MethodPut {
		return weatherFair
	}
	s.met++
	return s.state
}
