//go:build integration

package integration

import (
	"bytes"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/walship/walship/test/s3test"
)

// gate stands before an S3 server and lets a test take it away: connections
// pass, are refused, or are accepted and never answered.
type gate struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	state gateState
	bar   string // requests that have this don't pass, nor what comes behind them
	open  map[net.Conn]bool
	met   int                        // connections and requests that didn't pass
	watch func(toServer bool, n int) // is told of bytes before they are passed on

	running sync.WaitGroup
}

type gateState int

const (
	gateOpen   gateState = iota
	gateShut             // connections are closed at once
	gateSilent           // connections are kept and never answered
)

// newGate puts a gate before a server, and returns the server as seen through
// it.
func newGate(t *testing.T, server *s3test.Server) (*gate, *s3test.Server) {
	t.Helper()
	endpoint, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: listener, target: endpoint.Host, open: map[net.Conn]bool{}}
	g.running.Go(g.accept)
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		g.set(gateShut)
		g.running.Wait()
	})
	through := *server
	through.Endpoint = "http://" + listener.Addr().String()
	return g, &through
}

// set changes what happens to connections, and ends those that are there.
func (g *gate) set(state gateState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state, g.bar, g.met = state, "", 0
	for conn := range g.open {
		_ = conn.Close() // both ends see it
	}
}

// refuse lets everything pass but requests with a text, such as the name of an
// object.
func (g *gate) refuse(text string) {
	g.set(gateOpen)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bar = text
}

// turnedAway is how many connections and requests didn't pass since the state
// was set.
func (g *gate) turnedAway() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.met
}

// observe has a function told of the bytes that pass, before they do.
func (g *gate) observe(watch func(toServer bool, n int)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.watch = watch
}

func (g *gate) accept() {
	for {
		conn, err := g.listener.Accept()
		if err != nil {
			return // closed
		}
		g.running.Go(func() { g.serve(conn) })
	}
}

// admit decides about a connection, and notes it.
func (g *gate) admit(conn net.Conn) gateState {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != gateOpen {
		g.met++
	}
	if g.state != gateShut {
		g.open[conn] = true
	}
	return g.state
}

func (g *gate) serve(conn net.Conn) {
	defer func() {
		g.mu.Lock()
		delete(g.open, conn)
		g.mu.Unlock()
		_ = conn.Close() // perhaps again
	}()
	switch g.admit(conn) {
	case gateShut:
	case gateSilent:
		_, _ = io.Copy(io.Discard, conn) // until either end closes it
	case gateOpen:
		server, err := net.Dial("tcp", g.target)
		if err != nil {
			return // the client sees its connection closed
		}
		defer server.Close()
		var up sync.WaitGroup
		up.Go(func() {
			g.pass(server, conn, true)
			_ = server.Close() // ends the other direction
		})
		g.pass(conn, server, false)
		_ = conn.Close()
		up.Wait()
	}
}

// pass copies one direction until either end is gone.
func (g *gate) pass(to, from net.Conn, toServer bool) {
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if !g.look(toServer, buffer[:n]) {
				return
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// look says whether bytes may pass, and tells who watches.
func (g *gate) look(toServer bool, data []byte) bool {
	g.mu.Lock()
	watch, bar := g.watch, g.bar
	barred := toServer && bar != "" && bytes.Contains(data, []byte(bar))
	if barred {
		g.met++
	}
	g.mu.Unlock()
	if watch != nil {
		watch(toServer, len(data))
	}
	return !barred
}
