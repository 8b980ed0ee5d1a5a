"""One node of a cluster of two hundred, half of them IPv6: many_nodes.py PORT"""

import http.server
import json
import sys

NODES = [f"10.0.0.{n}" for n in range(1, 101)] + [f"2001:db8:1::{n:x}" for n in range(1, 101)]


class Node(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = json.dumps(NODES).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Node).serve_forever()
