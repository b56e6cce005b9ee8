//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
)

// contestant is one way to archive and fetch WAL.
type contestant struct {
	name        string
	peer, floor bool
	// coldOnly takes no part in what a server does.
	coldOnly bool
	// noRedo recovers nothing, which takes long.
	noRedo bool
	// detached calls leave the work to a process that they don't wait for.
	detached bool
	// ahead: a call archives what waits behind its own segment, too.
	ahead   bool
	prepare func(t *testing.T, s setting) commands
}

// setting is what one repository is made in.
type setting struct {
	dir     string // private, nobody's, gone after the repository
	place   *place
	prefix  string // of the repository in its place
	dataDir string // of the cluster that archives
	socket  string // of its server, where that is asked
	env     []string
}

// commands are what PostgreSQL is given, with its %p and %f. In fetch, DATA
// stands for the data directory of the server that recovers.
type commands struct {
	push  string
	fetch string // "" where nothing can be fetched
}

// contestants returns those of a place, in the order of the tables.
func contestants(p *place, walship string) []contestant {
	if p.server == nil {
		return []contestant{
			{name: "true", floor: true, ahead: true, prepare: doNothing},
			{name: "cp", floor: true, prepare: copyFiles},
			{name: "zstd -1", floor: true, prepare: zstdToDirectory},
			{name: "walship default", ahead: true, prepare: walshipAt(walship, "default", "")},
			{name: "walship fastest", ahead: true, prepare: walshipAt(walship, "fastest", "")},
			{name: "pgBackRest", peer: true, prepare: pgBackRest(3, false)},
			{name: "pgBackRest async", peer: true, detached: true, ahead: true, prepare: pgBackRest(3, true)},
			{name: "pgBackRest zstd 1", peer: true, coldOnly: true, prepare: pgBackRest(1, false)},
		}
	}
	return []contestant{
		{name: "zstd -1 + PUT", floor: true, prepare: zstdToS3},
		{name: "walship default", ahead: true, prepare: walshipAt(walship, "default", "https")},
		{name: "walship fastest", ahead: true, prepare: walshipAt(walship, "fastest", "https")},
		{name: "walship default, http", noRedo: true, ahead: true, prepare: walshipAt(walship, "default", "http")},
		{name: "walship fastest, http", noRedo: true, ahead: true, prepare: walshipAt(walship, "fastest", "http")},
		{name: "pgBackRest", peer: true, prepare: pgBackRest(3, false)},
		{name: "pgBackRest async", peer: true, detached: true, ahead: true, prepare: pgBackRest(3, true)},
		{name: "pgBackRest zstd 1", peer: true, coldOnly: true, prepare: pgBackRest(1, false)},
	}
}

// run runs one command to set a repository up.
func (s setting) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := pgtest.Command(t.Context(), t, major, program, args...)
	cmd.Dir = s.dir
	cmd.Env = append(cmd.Env, s.env...)
	return pgtest.MustRun(t, cmd)
}

func (s setting) path(name string) string { return filepath.Join(s.dir, name) }

func (s setting) write(t *testing.T, name, content string) string {
	t.Helper()
	return pgtest.WriteNobody(t, s.path(name), content)
}

// repositoryDir makes the directory of a repository.
func (s setting) repositoryDir(t *testing.T) string {
	t.Helper()
	return pgtest.MkdirNobody(t, s.place.dir, s.prefix)
}

func doNothing(t *testing.T, s setting) commands {
	s.repositoryDir(t)
	return commands{push: "/bin/true %p"}
}

func copyFiles(t *testing.T, s setting) commands {
	dir := s.repositoryDir(t)
	return commands{push: "cp %p " + dir + "/%f", fetch: "cp " + dir + "/%f %p"}
}

func zstdToDirectory(t *testing.T, s setting) commands {
	dir := s.repositoryDir(t)
	return commands{
		push:  "zstd -1 -q %p -o " + dir + "/%f.zst",
		fetch: "zstd -d -q -f " + dir + "/%f.zst -o %p",
	}
}

// zstdToS3 signs the request's head alone, which is the least that a PUT takes.
func zstdToS3(t *testing.T, s setting) commands {
	server := s.place.server
	config := s.write(t, "curl", fmt.Sprintf(
		"silent\nshow-error\nfail\nuser = %q\naws-sigv4 = \"aws:amz:us-east-1:s3\"\nheader = \"x-amz-content-sha256: UNSIGNED-PAYLOAD\"\n",
		server.AccessKey+":"+server.SecretKey))
	url := "http://" + s.place.front.plain + "/" + server.Bucket + "/" + s.prefix + "/%f.zst"
	local := s.path("%f.zst")
	return commands{
		push:  "zstd -1 -q -f %p -o " + local + " && curl -K " + config + " -T " + local + " " + url + " && rm " + local,
		fetch: "curl -K " + config + " -o " + local + " " + url + " && zstd -d -q -f --rm " + local + " -o %p",
	}
}

// walshipAt encrypts, and stores at a level. In S3, the scheme says how it
// speaks to the server.
func walshipAt(program, level, scheme string) func(*testing.T, setting) commands {
	return walshipIn(program, level, scheme, true)
}

func walshipIn(program, level, scheme string, encrypted bool) func(*testing.T, setting) commands {
	return func(t *testing.T, s setting) commands {
		repository := "file://" + filepath.Join(s.place.dir, s.prefix)
		if server := s.place.server; server != nil {
			address := s.place.front.plain
			if scheme == "https" {
				address = s.place.front.secure
			}
			repository = fmt.Sprintf("s3://%s/%s?region=us-east-1&endpoint=%s://%s&path_style=true", server.Bucket, s.prefix, scheme, address)
		}
		text := fmt.Sprintf("repository = %q\nstate_directory = %q\n[compression]\nlevel = %q\n", repository, s.path("state"), level)
		initialise := []string{"init"}
		secret := "" // that only restores know
		if encrypted {
			identity := s.path("identity")
			s.run(t, program, "key", "new", "--output", identity)
			text += fmt.Sprintf("[encryption]\nrecipients = [%q]\n", recipient(t, identity))
			secret = "WALSHIP_ENCRYPTION_IDENTITY_FILES=" + identity + " "
		} else {
			initialise = append(initialise, "--no-encryption")
		}
		config := s.write(t, "walship.toml", text)
		line := program + " --config " + config + " "
		s.run(t, program, append([]string{"--config", config}, initialise...)...)
		return commands{push: line + "wal push %p", fetch: secret + line + "wal fetch %f %p"}
	}
}

// recipient reads the public key that stands in an identity file.
func recipient(t *testing.T, identity string) string {
	t.Helper()
	text, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	for field := range strings.FieldsSeq(string(text)) {
		if strings.HasPrefix(field, "age1") {
			return field
		}
	}
	t.Fatalf("%s names no recipient", identity)
	return ""
}

// pgBackRest encrypts with what it has, AES-256 in CBC mode, and runs two
// processes where it runs several. It speaks HTTPS only.
func pgBackRest(level int, async bool) func(*testing.T, setting) commands {
	return pgBackRestIn(level, async, true)
}

func pgBackRestIn(level int, async, encrypted bool) func(*testing.T, setting) commands {
	return func(t *testing.T, s setting) commands {
		for _, name := range []string{"spool", "lock", "log"} {
			pgtest.MkdirNobody(t, s.path(name))
		}
		lines := []string{
			"[global]",
			"compress-type=zst",
			fmt.Sprintf("compress-level=%d", level),
			"process-max=2",
			"spool-path=" + s.path("spool"),
			"lock-path=" + s.path("lock"),
			"log-path=" + s.path("log"),
			"log-level-file=off",
		}
		if encrypted {
			lines = append(lines, "repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=a-pass-phrase-of-the-benchmark")
		}
		if async {
			lines = append(lines, "archive-async=y")
		}
		if server := s.place.server; server != nil {
			host, port, _ := strings.Cut(s.place.front.secure, ":")
			lines = append(lines,
				"repo1-type=s3",
				"repo1-path=/"+s.prefix,
				"repo1-s3-bucket="+server.Bucket,
				"repo1-s3-endpoint="+host,
				"repo1-s3-region=us-east-1",
				"repo1-s3-key="+server.AccessKey,
				"repo1-s3-key-secret="+server.SecretKey,
				"repo1-s3-uri-style=path",
				"repo1-storage-host="+host,
				"repo1-storage-port="+port,
				"repo1-storage-verify-tls=n",
			)
		} else {
			lines = append(lines, "repo1-path="+s.repositoryDir(t))
		}
		lines = append(lines, "[main]", "pg1-path="+s.dataDir)
		if s.socket != "" {
			lines = append(lines, "pg1-socket-path="+s.socket, "pg1-user=postgres")
		}
		config := s.write(t, "pgbackrest.conf", strings.Join(lines, "\n")+"\n")
		s.run(t, "pgbackrest", "--config="+config, "--stanza=main", "--no-online", "stanza-create")
		line := "pgbackrest --config=" + config + " --stanza=main "
		return commands{push: line + "archive-push %p", fetch: line + "--pg1-path=DATA archive-get %f %p"}
	}
}
