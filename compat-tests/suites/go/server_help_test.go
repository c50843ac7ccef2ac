// Stands in for the tests' own way to start servers, which reads the date of the server's build as servers up to 3.5 wrote it,
// and draws ports by lot. Same names, one server, a free port; where a test wants more servers, it is skipped.
package zk

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	_testConfigName   = "zoo.cfg"
	_testMyIDFileName = "myid"
)

type TestServer struct {
	Port   int
	Path   string
	Srv    *server
	Config ServerConfigServer
}

type TestCluster struct {
	Path    string
	Config  ServerConfig
	Servers []TestServer
}

func StartTestCluster(t *testing.T, size int, stdout, stderr io.Writer) (*TestCluster, error) {
	t.Helper()
	if size > 1 {
		t.Skip("needs an ensemble")
	}
	directory := t.TempDir()
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(directory, _testConfigName)
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := (ServerConfig{ClientPort: port, DataDir: directory}).Marshall(file); err != nil {
		return nil, err
	}
	srv, err := NewIntegrationTestServer(t, path, stdout, stderr)
	if err != nil {
		return nil, err
	}
	cluster := &TestCluster{Path: directory, Servers: []TestServer{{Port: port, Path: directory, Srv: srv}}}
	if err := cluster.StartAllServers(); err != nil {
		_ = cluster.Stop()
		return nil, err
	}
	return cluster, nil
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

func (tc *TestCluster) address() string {
	return fmt.Sprintf("127.0.0.1:%d", tc.Servers[0].Port)
}

func (tc *TestCluster) isServing() bool {
	said, err := fourLetterWord(tc.address(), "srvr", time.Second)
	return err == nil && bytes.Contains(said, []byte("Mode:"))
}

// await polls: nothing can be awaited across processes but the next try.
func (tc *TestCluster) await(serving bool) error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if tc.isServing() == serving {
			return nil
		}
	}
	return fmt.Errorf("%s: serving is still not %v", tc.address(), serving)
}

func (tc *TestCluster) StartAllServers() error {
	if err := tc.Servers[0].Srv.Start(); err != nil {
		return err
	}
	return tc.await(true)
}

func (tc *TestCluster) StopAllServers() error {
	// The server is killed, and a process that was killed ends with an error.
	_ = tc.Servers[0].Srv.Stop()
	return tc.await(false)
}

func (tc *TestCluster) Stop() error {
	return tc.StopAllServers()
}

func (tc *TestCluster) StartServer(address string) {
	tc.one(address, tc.StartAllServers)
}

func (tc *TestCluster) StopServer(address string) {
	tc.one(address, tc.StopAllServers)
}

func (tc *TestCluster) one(address string, act func() error) {
	if !strings.HasSuffix(address, tc.address()[strings.Index(tc.address(), ":"):]) {
		panic("no server at " + address)
	}
	if err := act(); err != nil {
		panic(err)
	}
}

func (tc *TestCluster) Connect(int) (*Conn, <-chan Event, error) {
	return tc.ConnectAll()
}

func (tc *TestCluster) ConnectAll() (*Conn, <-chan Event, error) {
	return tc.ConnectAllTimeout(15 * time.Second)
}

func (tc *TestCluster) ConnectAllTimeout(session time.Duration) (*Conn, <-chan Event, error) {
	return tc.ConnectWithOptions(session)
}

func (tc *TestCluster) ConnectWithOptions(session time.Duration, options ...connOption) (*Conn, <-chan Event, error) {
	return Connect([]string{tc.address()}, session, options...)
}

func requireNoErrorf(t *testing.T, err error, what ...interface{}) {
	t.Helper()
	if err != nil {
		t.Fatal(append(what, err)...)
	}
}
