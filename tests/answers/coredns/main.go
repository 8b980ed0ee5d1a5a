// CoreDNS with only the plugins of this test: all of them would take minutes to build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/loadbalance"
)

func main() {
	// The order of its own plugin.cfg: answers from the cache are shuffled too.
	dnsserver.Directives = []string{"bind", "loadbalance", "cache", "forward"}
	coremain.Run()
}
