package restore

import (
	"context"
	"fmt"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Link is a backup that the chosen one is based on.
type Link struct {
	ID         string         `json:"id"`
	Timeline   wal.TimelineID `json:"timeline"`
	StartLSN   string         `json:"start_lsn"`
	StopLSN    string         `json:"stop_lsn"`
	Objects    int            `json:"objects"`
	StoredSize int64          `json:"stored_size"` // bytes
}

// readChain reads the records of the backups that b is put together from, the
// full one first and b last; one alone for a full backup. It says why they
// can't be used, or "": one may be off the way, or an object be gone.
func (p *Plan) readChain(ctx context.Context, c Catalogue, b *repo.Backup) (chain []*repo.Backup, why string, err error) {
	chain, err = repo.Chain(ctx, c.Backup, b)
	if ctx.Err() != nil {
		return nil, "", fmt.Errorf("plan restore: %w", ctx.Err())
	}
	if err != nil {
		return nil, fmt.Sprintf("can't be put together: %v", err), nil
	}
	for _, link := range chain[:len(chain)-1] {
		if why := offPath(p.history, link.Timeline, link.StartLSN, link.StopLSN); why != "" {
			return nil, fmt.Sprintf("can't be put together: backup %s, which it is based on, %s", link.ID, why), nil
		}
	}
	for _, link := range chain {
		lost, err := c.Lost(ctx, link)
		switch {
		case err != nil:
			return nil, "", fmt.Errorf("plan restore: %w", err)
		case lost != "" && link == b:
			return nil, "can't be restored: " + lost, nil
		case lost != "":
			return nil, fmt.Sprintf("can't be put together: of backup %s, which it is based on, %s", link.ID, lost), nil
		}
	}
	return chain, "", nil
}

// describeChain fills in what is added by the backups that the chosen one is
// based on.
func (p *Plan) describeChain() {
	p.Backup.BasedOn = []Link{}
	for _, b := range p.chain[:len(p.chain)-1] {
		p.Backup.BasedOn = append(p.Backup.BasedOn, Link{
			ID: b.ID, Timeline: b.Timeline, StartLSN: b.StartLSN.String(), StopLSN: b.StopLSN.String(),
			Objects: len(b.Parts) + 1, StoredSize: b.StoredSize,
		})
		p.DownloadSize += b.StoredSize
	}
}
