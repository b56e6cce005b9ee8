// Package s3test runs real S3 servers of two makes for tests: versitygw and
// MinIO, each a process of its own on a free port of the loopback address and
// on a directory that goes away with the test.
//
// The programs come from the tests' cache (scripts/lib/tools.sh fills it); a
// missing one fails the test and says so.
package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Make is a make of S3 server.
type Make string

// The makes that Start knows.
const (
	VersityGW Make = "versitygw"
	MinIO     Make = "minio"
)

// Makes lists every make, for tests that run on each.
func Makes() []Make { return []Make{VersityGW, MinIO} }

// Region is what requests to either make are signed for.
const Region = "us-east-1"

const (
	startTimeout = 60 * time.Second // machines that build something else meanwhile
	stopTimeout  = 10 * time.Second
)

// Server is a running server with one empty bucket.
type Server struct {
	Make      Make
	Endpoint  string // http://127.0.0.1:PORT
	Bucket    string
	AccessKey string
	SecretKey string

	process *exec.Cmd
	exited  chan struct{} // closed when the process has ended
	log     *bytes.Buffer
}

// Start starts a server, waits until it answers, makes a bucket, and stops the
// server at the end of the test. What the server printed is logged when the
// test has failed.
func Start(t testing.TB, server Make) *Server {
	t.Helper()
	dir := t.TempDir()
	// Another process can take the port between the choice and the server's
	// own listen, so a server that ends at once gets another one.
	var err error
	for range 5 {
		s := &Server{Make: server, Bucket: "walship-test", AccessKey: "walshiptest", SecretKey: "walship-test-secret"}
		if err = s.start(dir); err != nil {
			t.Fatal(err)
		}
		if err = s.createBucket(t.Context()); err != nil {
			if errors.Is(err, errEnded) {
				continue
			}
			t.Fatal(errors.Join(err, s.stop()))
		}
		t.Cleanup(func() {
			if err := s.stop(); err != nil {
				t.Error(err)
			}
			if t.Failed() {
				t.Logf("%s printed:\n%s", s.Make, s.log)
			}
		})
		return s
	}
	t.Fatal(err)
	return nil
}

// Env is what the AWS SDK of another process needs to sign requests, in the
// form of exec.Cmd.Env.
func (s *Server) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey}
}

// SetEnv sets the credentials in this process's environment for the test.
func (s *Server) SetEnv(t testing.TB) {
	t.Helper()
	for _, setting := range s.Env() {
		name, value, _ := strings.Cut(setting, "=")
		t.Setenv(name, value)
	}
}

// URL names prefix in the server's bucket the way a repository is named.
func (s *Server) URL(prefix string) string { return s.BucketURL(s.Bucket, prefix) }

// BucketURL is URL for another bucket, which needn't be there.
func (s *Server) BucketURL(bucket, prefix string) string {
	u := url.URL{Scheme: "s3", Host: bucket, Path: "/" + prefix}
	u.RawQuery = "region=" + Region + "&endpoint=" + s.Endpoint + "&path_style=true"
	return u.String()
}

// Client is a plain SDK client of the server, which never retries: for what a
// test wants to do or see beside the code under test.
func (s *Server) Client() *s3.Client {
	return s3.New(s3.Options{
		Region:       Region,
		BaseEndpoint: aws.String(s.Endpoint),
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider(s.AccessKey, s.SecretKey, ""),
		Retryer:      aws.NopRetryer{},
	})
}

func (s *Server) start(dir string) error {
	program, err := Program(string(s.Make))
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	s.Endpoint = "http://" + address
	data, meta := filepath.Join(dir, "data"), filepath.Join(dir, "meta")
	for _, d := range []string{data, meta} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "TMPDIR=" + dir}
	var args []string
	switch s.Make {
	case VersityGW:
		// The sidecar keeps metadata in files, because not every file
		// system of a test machine has extended attributes.
		args = []string{"--quiet", "--port", address, "posix", "--sidecar", meta, data}
		env = append(env, "ROOT_ACCESS_KEY="+s.AccessKey, "ROOT_SECRET_KEY="+s.SecretKey)
	case MinIO:
		args = []string{"server", "--quiet", "--address", address, "--console-address", "127.0.0.1:0", data}
		env = append(env, "MINIO_ROOT_USER="+s.AccessKey, "MINIO_ROOT_PASSWORD="+s.SecretKey,
			"MINIO_UPDATE=off", "MINIO_BROWSER=off")
	default:
		return fmt.Errorf("start an S3 server: no such make as %q", s.Make)
	}
	s.log = new(bytes.Buffer)
	s.process = exec.Command(program, args...)
	s.process.Dir, s.process.Env = dir, env
	s.process.Stdout, s.process.Stderr = s.log, s.log
	// A test process that is killed takes its servers along.
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		return fmt.Errorf("start %s: %w", s.Make, err)
	}
	s.exited = make(chan struct{})
	go func() {
		_ = s.process.Wait() // its outcome is in ProcessState
		close(s.exited)
	}()
	return nil
}

var errEnded = errors.New("the server ended")

// createBucket makes the bucket as soon as the server lets it.
func (s *Server) createBucket(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client := s.Client()
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := client.CreateBucket(attempt, &s3.CreateBucketInput{Bucket: aws.String(s.Bucket)})
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("start %s: %w: %v: %s", s.Make, errEnded, s.process.ProcessState, s.log)
		case <-ctx.Done():
			return fmt.Errorf("start %s: it doesn't answer: %w", s.Make, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// stop ends the server by its own process id.
func (s *Server) stop() error {
	// An error means that it has ended, which exited then says.
	_ = s.process.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
		return nil
	case <-time.After(stopTimeout):
	}
	_ = s.process.Process.Kill()
	<-s.exited
	return fmt.Errorf("stop %s: it didn't end within %v of SIGTERM", s.Make, stopTimeout)
}

// Program returns the path of a program in the tests' cache.
func Program(name string) (string, error) {
	cache := os.Getenv("WALSHIP_TEST_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find the tests' cache: %w", err)
		}
		cache = filepath.Join(base, "walship-test")
	}
	path := filepath.Join(cache, "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find %s: %w (scripts/lib/tools.sh installs it)", name, err)
	}
	return path, nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	address := listener.Addr().String()
	return address, listener.Close()
}
