"""A cluster: nodes with the DynamoDB API that list which of them are live, all over one store.

    cluster.py PORT

Orders come on standard input, one a line; each is answered with a line of JSON on standard output.

    start ADDRESS   open the node's port, then list it as live
    leave ADDRESS   list it no more; its port stays open
    stop ADDRESS    close its port and reset its connections; while it is listed, that is a crash
    hang ADDRESS    go on accepting connections, and answer no request
    resume ADDRESS  end that as a restart would: what was asked before has no reply
    close_each      from now on answer each request with an empty item and close its connection: to count connections
    counts          how many requests each node has had: {"ADDRESS": {"requests": 0, "polls": 0}}
    usage           what each access key has had of each node since the last such order: {"KEY": {"ADDRESS":
                    {"connections": 0, "requests": 0, "retries": 0}}}; retries are requests that an SDK calls so

The API is moto's, whose store belongs to the process. Connections are kept open, as Alternator keeps them.
"""

import io
import json
import random
import re
import socket
import struct
import sys
import threading
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn

from moto.server import DomainDispatcherApplication, create_backend_app


class Cluster:
    def __init__(self, port):
        self.port = port
        self.store = DomainDispatcherApplication(create_backend_app)
        self.live = set()
        self.nodes = {}
        self.requests = Counter()
        self.polls = Counter()
        self.lock = threading.Lock()
        self.used = defaultdict(Counter)

    def start(self, address):
        self.nodes[address] = Node(self, address)
        self.live.add(address)

    def leave(self, address):
        self.live.remove(address)

    def stop(self, address):
        self.nodes.pop(address).stop()

    def hang(self, address):
        self.nodes[address].answering.clear()

    def resume(self, address):
        self.nodes[address].answering.set()

    def close_each(self):
        for node in self.nodes.values():
            node.server.closes_each = True

    def usage(self):
        with self.lock:
            used, self.used = self.used, defaultdict(Counter)
        by_key = defaultdict(dict)
        for (key, address), counted in used.items():
            by_key[key][address] = {name: counted[name] for name in ("connections", "requests", "retries")}
        return by_key

    def counts(self):
        return {
            address: {"requests": self.requests[address], "polls": self.polls[address]}
            for address in self.requests.keys() | self.polls.keys()
        }


class Node:
    """One address of a cluster."""

    def __init__(self, cluster, address):
        self.cluster = cluster
        self.address = address
        self.answering = threading.Event()
        self.answering.set()
        self.server = Server(address, cluster.port, self.answer)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), name=address, daemon=True)
        self.thread.start()

    def answer(self, environ, start_response):
        if not self.answering.is_set():
            self.answering.wait()
            break_connection(environ["connection"])
            raise ConnectionResetError("the node hung when this was asked")
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "GET" and path == "/localnodes":
            self.cluster.polls[self.address] += 1
            nodes = list(self.cluster.live)
            random.shuffle(nodes)
            return plain(start_response, "application/json", json.dumps(nodes, separators=(",", ":")))
        if environ["REQUEST_METHOD"] == "GET" and path == "/":
            return plain(start_response, "text/plain", f"healthy: {environ['HTTP_HOST']}")
        self.cluster.requests[self.address] += 1
        self.count(environ)
        if self.server.closes_each:
            return plain(start_response, "application/x-amz-json-1.0", "{}")
        return self.cluster.store.get_application(environ)(environ, start_response)

    def count(self, environ):
        key = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        retried = re.search(r"attempt=(\d+)", environ.get("HTTP_AMZ_SDK_REQUEST", "attempt=1"))
        with self.cluster.lock:
            counted = self.cluster.used[key[1] if key else "", self.address]
            counted["requests"] += 1
            counted["retries"] += bool(retried) and int(retried[1]) > 1
            counted["connections"] += self.server.is_first_request(environ["connection"])

    def stop(self):
        self.answering.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.server.reset_connections()


class Server(ThreadingMixIn, TCPServer):
    """A server that knows its connections, so that it can break them, and keeps them open, as Alternator does."""

    allow_reuse_address = True
    block_on_close = False
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, port, application):
        self.application = application
        self.connections = set()
        self.used = set()
        self.closes_each = False
        super().__init__((address, port), Handler)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        self.used.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def is_first_request(self, connection):
        first = connection not in self.used
        self.used.add(connection)
        return first

    def reset_connections(self):
        for connection in list(self.connections):
            break_connection(connection)


class Handler(BaseHTTPRequestHandler):
    """WSGI over connections that serve many requests: werkzeug's server closes each one after a request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # The head and the body leave together.

    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        environ = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()}
        host, port = self.server.server_address
        environ |= {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": self.client_address[0],
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "connection": self.connection,
        }
        self.wfile.write(b"".join(self.server.application(environ, self.start_response)))

    do_POST = do_GET

    def start_response(self, status, headers):
        code, _, reason = status.partition(" ")
        self.send_response(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        if self.server.closes_each:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_):
        pass


def break_connection(connection):
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # The client was faster.


def plain(start_response, content_type, body):
    body = body.encode()
    start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]


def main():
    cluster = Cluster(int(sys.argv[1]))
    names = ("start", "leave", "stop", "hang", "resume", "close_each", "counts", "usage")
    orders = {name: getattr(cluster, name) for name in names}
    for line in sys.stdin:
        order, *arguments = line.split()
        print(json.dumps(orders[order](*arguments)), flush=True)


if __name__ == "__main__":
    main()
