// The Go client whose tests are run; nothing of ours is built from it.
module zabra/suites/go

go 1.13

require github.com/go-zookeeper/zk v1.0.4
