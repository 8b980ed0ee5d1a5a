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

import json
import random
import re
import socket
import struct
import sys
import threading
from collections import Counter, defaultdict

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler


class Cluster:
    def __init__(self, port):
        self.port = port
        self.store = DomainDispatcherApplication(create_backend_app)
        self.live = set()
        self.nodes = {}
        self.requests = Counter()
        self.polls = Counter()
        self.closes_each = False
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
        self.closes_each = True

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
        self.server = Server(address, cluster.port, self.answer, handler=QuietHandler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), name=address, daemon=True)
        self.thread.start()

    def answer(self, environ, start_response):
        if not self.answering.is_set():
            self.answering.wait()
            break_connection(environ["werkzeug.socket"])
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
        if self.cluster.closes_each:
            return plain(start_response, "application/x-amz-json-1.0", "{}", ("Connection", "close"))
        return self.cluster.store.get_application(environ)(environ, start_response)

    def count(self, environ):
        key = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        retried = re.search(r"attempt=(\d+)", environ.get("HTTP_AMZ_SDK_REQUEST", "attempt=1"))
        with self.cluster.lock:
            counted = self.cluster.used[key[1] if key else "", self.address]
            counted["requests"] += 1
            counted["retries"] += bool(retried) and int(retried[1]) > 1
            counted["connections"] += self.server.is_first_request(environ["werkzeug.socket"])

    def stop(self):
        self.answering.set()
        self.server.shutdown()
        self.thread.join()
        self.server.reset_connections()


class Server(ThreadedWSGIServer):
    """A server that knows its connections, so that it can break them."""

    def __init__(self, *arguments, **keywords):
        self.connections = set()
        self.used = set()
        super().__init__(*arguments, **keywords)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        self.used.discard(request)
        super().shutdown_request(request)

    def is_first_request(self, connection):
        first = connection not in self.used
        self.used.add(connection)
        return first

    def reset_connections(self):
        for connection in list(self.connections):
            break_connection(connection)


class QuietHandler(WSGIRequestHandler):
    def log(self, type, message, *arguments):
        if type != "info":
            super().log(type, message, *arguments)


def break_connection(connection):
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # The client was faster.


def plain(start_response, content_type, body, *headers):
    body = body.encode()
    start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers])
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
