package backup

import "time"

// progressInterval is the time between two lines that say how far a backup is.
const progressInterval = 30 * time.Second

// reportProgress logs now and then until the function it returns is called.
func (r *run) reportProgress() (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(progressInterval)
		defer ticker.Stop()
		for {
			select {
			case <-quit:
				return
			case <-ticker.C:
				r.log.Info("copying the cluster", "id", r.record.ID, "files", r.progress.files.Load(), "bytes", r.progress.bytes.Load(), "stored", r.progress.stored.Load())
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}
