// Command etcd is the upstream server, unchanged: the release module keeps
// its entry point in a package that can be called.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
