"""Simulated clusters: nodes that serve `/localnodes` and `/` over HTTP, as Alternator does. A test can stop, hang and
corrupt them."""

import asyncio
import json
import threading

PORT = 8000

LOOP = asyncio.new_event_loop()
threading.Thread(target=LOOP.run_forever, name="clusters", daemon=True).start()


def run(coroutine):
    """Runs a coroutine in the thread of the clusters."""
    return asyncio.run_coroutine_threadsafe(coroutine, LOOP).result(timeout=10)


class Cluster:
    """Nodes that list each other. All of them have the same port."""

    def __init__(self, addresses, port=PORT):
        self.port = port
        self.listed = list(addresses)
        """What `/localnodes` contains."""
        self.nodes = {address: Node(self, address) for address in addresses}
        self.says = None
        """Replaces every `/localnodes` reply: head and body, in octets."""
        self.pause = 0.0
        """Seconds between two octets of that reply."""
        self.polls = 0
        for node in self.nodes.values():
            run(node.start())

    def add(self, address, healthy=True):
        """Adds a node to the list; its port is open, and `GET /` succeeds if it is healthy."""
        self.nodes[address] = Node(self, address, healthy)
        run(self.nodes[address].start())
        self.listed.append(address)

    def stop(self, *addresses):
        """Closes the ports of these nodes, or of all, and resets their connections; they stay listed."""
        for address in addresses or list(self.nodes):
            run(self.nodes[address].stop())

    def restart(self, address):
        run(self.nodes[address].start())

    def hang(self, address):
        """The node goes on accepting connections and answers no request."""
        run(self.nodes[address].hang())

    def resume(self, address):
        """Ends `hang` as a restart of the node would: what it was asked before has no reply."""
        run(self.nodes[address].resume())

    def reply(self):
        self.polls += 1
        return self.says or ok(json.dumps(self.listed).encode())


class Node:
    def __init__(self, cluster, address, healthy=True):
        self.cluster = cluster
        self.address = address
        self.healthy = healthy
        self.probes = 0
        self.writers = set()
        self.responsive = asyncio.Event()
        """Set unless the node hangs."""
        self.responsive.set()

    async def start(self):
        self.server = await asyncio.start_server(self.serve, self.address, self.cluster.port)

    async def stop(self):
        self.server.close()
        self.reset_connections()

    async def hang(self):
        self.responsive.clear()

    async def resume(self):
        self.reset_connections()
        self.responsive.set()

    def reset_connections(self):
        for writer in list(self.writers):
            writer.transport.abort()

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await self.responsive.wait()
                if head.split()[1].startswith(b"/localnodes"):
                    await self.write_slowly(writer, self.cluster.reply())
                else:
                    self.probes += 1
                    writer.write(ok(b"healthy") if self.healthy else status(b"503 Service Unavailable"))
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass  # The client has closed the connection, or the node has been stopped.
        finally:
            self.writers.discard(writer)
            writer.close()

    async def write_slowly(self, writer, reply):
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
