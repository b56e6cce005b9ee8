package backup

import "time"

// Progress says how far the copying of a cluster is.
type Progress struct {
	ID     string
	Files  int64
	Bytes  int64 // of the cluster's files, copied so far
	Total  int64 // bytes of those files when they were listed; 0 while they are
	Stored int64 // bytes of finished objects
}

// progressInterval is the time between two calls of Options.Progress.
const progressInterval = time.Second

// reportProgress calls Options.Progress until the function that it returns is
// called, and in the end once more.
func (r *run) reportProgress() (stop func()) {
	if r.options.Progress == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		r.options.Progress(r.progressNow()) // what the speed is reckoned from
		for {
			select {
			case <-quit:
				r.options.Progress(r.progressNow())
				return
			case <-ticker.C:
				r.options.Progress(r.progressNow())
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

func (r *run) progressNow() Progress {
	p := &r.progress
	return Progress{ID: r.record.ID, Files: p.files.Load(), Bytes: p.bytes.Load(), Total: p.total.Load(), Stored: p.stored.Load()}
}
