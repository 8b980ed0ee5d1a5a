"""A cluster: nodes with the DynamoDB API that list which of them are live, all over one store.

    cluster.py PORT

Orders come on standard input, one a line; each is answered with a line of JSON on standard output.

    start ADDRESS   open the node's port, then list it as live
    leave ADDRESS   list it no more; its port stays open
    stop ADDRESS    close its port and reset its connections; while it is listed, that is a crash
    counts          how many requests each node has had: {"ADDRESS": {"requests": 0, "polls": 0}}

The API is moto's, whose store belongs to the process. Connections are kept open, as Alternator keeps them.
"""

import json
import random
import socket
import struct
import sys
import threading
from collections import Counter

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

    def start(self, address):
        self.nodes[address] = Node(self, address)
        self.live.add(address)

    def leave(self, address):
        self.live.remove(address)

    def stop(self, address):
        self.nodes.pop(address).stop()

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
        self.server = Server(address, cluster.port, self.answer, handler=QuietHandler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), name=address, daemon=True)
        self.thread.start()

    def answer(self, environ, start_response):
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "GET" and path == "/localnodes":
            self.cluster.polls[self.address] += 1
            nodes = list(self.cluster.live)
            random.shuffle(nodes)
            return plain(start_response, "application/json", json.dumps(nodes, separators=(",", ":")))
        if environ["REQUEST_METHOD"] == "GET" and path == "/":
            return plain(start_response, "text/plain", f"healthy: {environ['HTTP_HOST']}")
        self.cluster.requests[self.address] += 1
        return self.cluster.store.get_application(environ)(environ, start_response)

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.reset_connections()


class Server(ThreadedWSGIServer):
    """A server that knows its connections, so that it can break them."""

    def __init__(self, *arguments, **keywords):
        self.connections = set()
        super().__init__(*arguments, **keywords)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def reset_connections(self):
        for connection in list(self.connections):
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # The client was faster.


class QuietHandler(WSGIRequestHandler):
    def log(self, type, message, *arguments):
        if type != "info":
            super().log(type, message, *arguments)


def plain(start_response, content_type, body):
    body = body.encode()
    start_response("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(body)))])
    return [body]


def main():
    cluster = Cluster(int(sys.argv[1]))
    orders = {name: getattr(cluster, name) for name in ("start", "leave", "stop", "counts")}
    for line in sys.stdin:
        order, *arguments = line.split()
        print(json.dumps(orders[order](*arguments)), flush=True)


if __name__ == "__main__":
    main()
