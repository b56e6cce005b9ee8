package archive

import (
	"bytes"
	"sync"

	"github.com/walship/walship/pkg/object"
)

// packers are the means to make objects in memory, used again and again: they
// would take a good part of a push to allocate.
type packers struct {
	sealer     *object.Sealer
	processors int // that work at one object; 0: one

	mu      sync.Mutex
	idle    []*object.Packer
	buffers []*bytes.Buffer
}

func (p *packers) get() (*object.Packer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.idle) - 1; last >= 0 {
		idle := p.idle[last]
		p.idle = p.idle[:last]
		return idle, nil
	}
	return p.sealer.NewPacker(p.processors)
}

func (p *packers) put(idle *object.Packer) {
	idle.Reset() // now, since nobody may take it again: its goroutines end
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, idle)
}

// getBuffer returns an empty buffer with room for size bytes.
func (p *packers) getBuffer(size int) *bytes.Buffer {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.buffers) - 1; last >= 0 {
		buffer := p.buffers[last]
		p.buffers = p.buffers[:last]
		if buffer.Cap() >= size {
			buffer.Reset()
			return buffer
		}
	}
	const step = 1 << 20 // the next one's size will be a little different
	return bytes.NewBuffer(make([]byte, 0, (size+step-1)&^(step-1)))
}

func (p *packers) putBuffer(buffer *bytes.Buffer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buffers = append(p.buffers, buffer)
}
