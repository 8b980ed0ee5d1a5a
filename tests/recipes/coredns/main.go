// CoreDNS with only the plugins that the recipe and its host need: all of them would take minutes to build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
)

func main() {
	// In the order of CoreDNS's own plugin.cfg.
	dnsserver.Directives = []string{"errors", "cache", "forward"}
	coremain.Run()
}
