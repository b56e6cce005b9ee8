package archive

import (
	"bytes"
	"sync"

	"github.com/walship/walship/pkg/object"
)

// packers are the means to make objects in memory, used again and again: they
// would take a good part of a push to allocate.
type packers struct {
	sealer *object.Sealer

	mu      sync.Mutex
	idle    []*packer
	buffers []*bytes.Buffer
}

type packer struct {
	*object.Packer
	buffer []byte // what is copied to it goes through
}

// copyBuffer is how many bytes are compressed at a time.
const copyBuffer = 256 << 10

func (p *packers) get() (*packer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := len(p.idle) - 1; last >= 0 {
		idle := p.idle[last]
		p.idle = p.idle[:last]
		idle.Reset()
		return idle, nil
	}
	inner, err := p.sealer.NewPacker()
	if err != nil {
		return nil, err
	}
	return &packer{inner, make([]byte, copyBuffer)}, nil
}

func (p *packers) put(idle *packer) {
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
	return bytes.NewBuffer(make([]byte, 0, size))
}

func (p *packers) putBuffer(buffer *bytes.Buffer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.buffers = append(p.buffers, buffer)
}
