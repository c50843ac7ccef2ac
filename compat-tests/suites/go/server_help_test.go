// Stands in for the tests' own way to start servers, which reads the date of the server's build as servers up to 3.5 wrote it,
// and draws ports by lot. Same names, free ports.
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
	ports, err := freePorts(3 * size)
	if err != nil {
		return nil, err
	}
	members := make([]ServerConfigServer, size)
	for i := range members {
		members[i] = ServerConfigServer{ID: i + 1, Host: "127.0.0.1", PeerPort: ports[3*i+1], LeaderElectionPort: ports[3*i+2]}
	}
	cluster := &TestCluster{Path: t.TempDir()}
	for i, member := range members {
		directory := filepath.Join(cluster.Path, fmt.Sprintf("srv%d", member.ID))
		cluster.Config = ServerConfig{ClientPort: ports[3*i], DataDir: directory, Servers: members}
		srv, err := newServer(t, cluster.Config, member.ID, stdout, stderr)
		if err != nil {
			return nil, err
		}
		cluster.Servers = append(cluster.Servers, TestServer{Port: ports[3*i], Path: directory, Srv: srv, Config: member})
	}
	if err := cluster.StartAllServers(); err != nil {
		_ = cluster.Stop()
		return nil, err
	}
	return cluster, nil
}

func newServer(t *testing.T, config ServerConfig, id int, stdout, stderr io.Writer) (*server, error) {
	if err := os.Mkdir(config.DataDir, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(config.DataDir, _testMyIDFileName), []byte(fmt.Sprintln(id)), 0o600); err != nil {
		return nil, err
	}
	path := filepath.Join(config.DataDir, _testConfigName)
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := config.Marshall(file); err != nil {
		return nil, err
	}
	return NewIntegrationTestServer(t, path, stdout, stderr)
}

// freePorts holds all of them until it has enough, so that they differ.
func freePorts(count int) ([]int, error) {
	ports := make([]int, count)
	for i := range ports {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}

func (ts *TestServer) address() string {
	return fmt.Sprintf("127.0.0.1:%d", ts.Port)
}

// await polls: nothing can be awaited across processes but the next try.
func (ts *TestServer) await() error {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		said, err := fourLetterWord(ts.address(), "srvr", time.Second)
		if err == nil && bytes.Contains(said, []byte("Mode:")) {
			return nil
		}
	}
	return fmt.Errorf("%s does not serve", ts.address())
}

func (tc *TestCluster) StartAllServers() error {
	for i := range tc.Servers {
		if err := tc.Servers[i].Srv.Start(); err != nil {
			return err
		}
	}
	for i := range tc.Servers {
		if err := tc.Servers[i].await(); err != nil {
			return err
		}
	}
	return nil
}

func (tc *TestCluster) StopAllServers() error {
	for i := range tc.Servers {
		// The server is killed, and a process that was killed ends with an error. One that has not started, or has ended, has none.
		if srv := tc.Servers[i].Srv; srv.cmd != nil {
			_ = srv.Stop()
		}
	}
	return nil
}

func (tc *TestCluster) Stop() error {
	return tc.StopAllServers()
}

// StartServer does not wait: it takes others to serve.
func (tc *TestCluster) StartServer(address string) {
	if err := tc.at(address).Start(); err != nil {
		panic(err)
	}
}

func (tc *TestCluster) StopServer(address string) {
	_ = tc.at(address).Stop()
}

func (tc *TestCluster) at(address string) *server {
	for i := range tc.Servers {
		if strings.HasSuffix(address, fmt.Sprintf(":%d", tc.Servers[i].Port)) {
			return tc.Servers[i].Srv
		}
	}
	panic("no server at " + address)
}

func (tc *TestCluster) Connect(index int) (*Conn, <-chan Event, error) {
	return Connect([]string{tc.Servers[index].address()}, 15*time.Second)
}

func (tc *TestCluster) ConnectAll() (*Conn, <-chan Event, error) {
	return tc.ConnectAllTimeout(15 * time.Second)
}

func (tc *TestCluster) ConnectAllTimeout(session time.Duration) (*Conn, <-chan Event, error) {
	return tc.ConnectWithOptions(session)
}

func (tc *TestCluster) ConnectWithOptions(session time.Duration, options ...connOption) (*Conn, <-chan Event, error) {
	addresses := make([]string, len(tc.Servers))
	for i := range tc.Servers {
		addresses[i] = tc.Servers[i].address()
	}
	return Connect(addresses, session, options...)
}

func requireNoErrorf(t *testing.T, err error, what ...interface{}) {
	t.Helper()
	if err != nil {
		t.Fatal(append(what, err)...)
	}
}
