// A client in Go: client PORT
//
// For each line "ID NAME" it dials the name, as net/http does; all addresses together have four seconds. It prints
// "ID ADDRESS MILLISECONDS"; the address is "-" if none accepted. Built with CGO_ENABLED=0 it has Go's own resolver,
// with the tag netcgo that of the C library.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	port := os.Args[1]
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		go run(words[0], words[1], port)
	}
}

func run(id, name, port string) {
	start := time.Now()
	host := "-"
	dialer := net.Dialer{Timeout: 4 * time.Second}
	connection, err := dialer.Dial("tcp", net.JoinHostPort(name, port))
	if err == nil {
		host, _, _ = net.SplitHostPort(connection.RemoteAddr().String())
		connection.Close()
	}
	// One write, so that lines of several goroutines do not mix.
	fmt.Printf("%s %s %.1f\n", id, host, float64(time.Since(start).Microseconds())/1000)
}
