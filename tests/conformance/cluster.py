"""Simulated clusters: nodes that tell over HTTP who is live, as Alternator does; a test can stop and corrupt them."""

import asyncio
import json
import threading

PORT = 8000

LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, name="clusters", daemon=True).start()


def run(work):
    """Does something in the clusters' thread."""
    return asyncio.run_coroutine_threadsafe(work, LOOP).result(timeout=10)


class Cluster:
    """Nodes that list each other."""

    def __init__(self, addresses):
        self.listed = list(addresses)
        self.nodes = {address: Node(self, address) for address in addresses}
        self.says = None
        """What takes the place of every `/localnodes` reply: head and body, in octets."""
        self.pause = 0.0
        """Seconds between two octets of that reply."""
        self.polls = 0
        for node in self.nodes.values():
            run(node.start())

    def add(self, address, healthy=True):
        """A node that everybody lists; its port is open, and `GET /` works if it is healthy."""
        self.nodes[address] = Node(self, address, healthy)
        run(self.nodes[address].start())
        self.listed.append(address)

    def stop(self, *addresses):
        """Ports are closed and connections reset; the others go on listing these nodes."""
        for address in addresses or list(self.nodes):
            run(self.nodes[address].stop())

    def restart(self, address):
        run(self.nodes[address].start())

    def reply(self):
        self.polls += 1
        return self.says or ok(json.dumps(self.listed).encode())


class Node:
    def __init__(self, cluster, address, healthy=True):
        self.cluster, self.address, self.healthy = cluster, address, healthy
        self.probes = 0
        self.writers = set()

    async def start(self):
        self.server = await asyncio.start_server(self.serve, self.address, PORT)

    async def stop(self):
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.split()[1].startswith(b"/localnodes"):
                    await self.drip(writer, self.cluster.reply())
                else:
                    self.probes += 1
                    writer.write(ok(b"healthy") if self.healthy else status(b"503 Service Unavailable"))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # The server has closed, or the node has been stopped.
        finally:
            self.writers.discard(writer)
            writer.close()

    async def drip(self, writer, reply):
        pieces = [reply]
        if self.cluster.pause:
            pieces = [bytes([octet]) for octet in reply]
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(self.cluster.pause)


def ok(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def status(line):
    return b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % line
