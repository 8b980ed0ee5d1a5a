"""Asks a server over plain sockets."""

import socket
import struct
import time

from wire import COOKIE, RD, Malformed, opt, option, query, read

CLIENT = "127.0.0.1"
"""Where questions come from, unless a test says otherwise."""
PORT = 53
PATIENCE = 5.0
"""Seconds after which a server that should answer has not."""
GRACE = 0.1
"""Seconds that an answer has before the server is asked something else, to learn whether it will not come."""
CLIENT_COOKIE = bytes.fromhex("0123456789abcdef")


class Silence(Exception):
    """A server did not answer where it had to."""


class Server:
    """One of the servers under test."""

    def __init__(self, name, address, port=PORT, known="c1.alt.test"):
        self.name, self.address, self.port = name, address, port
        self.family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.known = known
        self.next_id = 0

    @property
    def ours(self):
        return self.name == "alternator-dns"

    def fresh_id(self):
        self.next_id = self.next_id % 0xFFFF + 1
        return struct.pack(">H", self.next_id)

    def udp(self, message, client=CLIENT):
        """The reply to a datagram, or None if there is none. What tells that is the reply to a question behind it: a
        server that answers the second one has dropped the first."""
        with socket.socket(self.family, socket.SOCK_DGRAM) as asker:
            asker.bind((client, 0))
            # The kernel lets through only what comes from this address.
            asker.connect((self.address, self.port))
            wanted, after = self.fresh_id(), self.fresh_id()
            asker.send(wanted + message[2:])
            if reply := receive(asker, {wanted}, GRACE):
                return read(reply)
            asker.send(after + query(self.known)[2:])
            while reply := receive(asker, {wanted, after}, PATIENCE):
                if reply[:2] == wanted:
                    return read(reply)
                # The two may have been answered by different threads.
                late = receive(asker, {wanted}, GRACE)
                return read(late) if late else None
            raise Silence(f"{self.name} no longer answers")

    def tcp(self, *messages, client=CLIENT):
        """The replies to messages on one connection, in the order of the questions; None for each that is missing."""
        with Connection(self, client) as connection:
            ids = [connection.send(message) for message in messages]
            replies = {}
            while len(replies) < len(ids) and (reply := connection.receive()):
                replies[reply.octets[:2]] = reply
            return [replies.get(message_id) for message_id in ids]


def receive(asker, ids, seconds):
    """The next datagram with one of these IDs; None after so many seconds, or when the port is closed."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        asker.settimeout(left)
        try:
            octets = asker.recv(65535)
        except OSError:
            return None
        if octets[:2] in ids:
            return octets
    return None


class Connection:
    """A TCP connection to a server."""

    def __init__(self, server, client=CLIENT, patience=PATIENCE):
        self.server = server
        self.socket = socket.socket(server.family)
        self.socket.settimeout(patience)
        self.socket.bind((client, 0))
        self.socket.connect((server.address, server.port))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def framed(self, message):
        message_id = self.server.fresh_id()
        return message_id, struct.pack(">H", len(message)) + message_id + message[2:]

    def send(self, message):
        message_id, octets = self.framed(message)
        self.socket.sendall(octets)
        return message_id

    def receive(self):
        """The next reply; None when the connection is closed or silent."""
        head = self.octets(2)
        body = head and self.octets(struct.unpack(">H", head)[0])
        return read(body) if body else None

    def octets(self, count):
        octets = b""
        while len(octets) < count:
            try:
                more = self.socket.recv(count - len(octets))
            except OSError:
                return None
            if not more:
                return None
            octets += more
        return octets

    def closed_after(self, seconds):
        """Seconds until the server closes; None if it has not by then."""
        start = time.monotonic()
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65535):
                pass
        except TimeoutError:
            return None
        except OSError:
            pass
        return time.monotonic() - start


def question(name, record_type="A", edns=False, cookie=False):
    """The message that an ordinary client sends."""
    options = [option(COOKIE, CLIENT_COOKIE)] if cookie else []
    return query(name, record_type, flags=RD, edns=opt(*options) if edns else None)


def ask(port, message, seconds=0.2):
    """The reply, in octets, of the server at this port of loopback, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(seconds)
        asker.connect(("127.0.0.1", port))
        try:
            asker.send(message)
            return asker.recv(4096)
        except OSError:
            return None


def outcome(reply):
    """The rcode of a reply and its number of answers."""
    return reply and (reply[3] & 15, struct.unpack(">H", reply[6:8])[0])


__all__ = ["CLIENT", "CLIENT_COOKIE", "Connection", "Malformed", "PORT", "Server", "Silence", "ask", "outcome", "question"]
