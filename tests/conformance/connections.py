"""Connections: transports, questions in pieces and in bulk, and clients that connect and send nothing."""

import select
import socket
import struct
import threading
import time

import cookies
import servers
from checks import THREE, problem_with
from queries import Connection, Server
from servers import OURS
from wire import COOKIE, opt, option, query, words

COOKIE_OF_CLIENT = bytes.fromhex("2464c4abcf10c957")
COMMON_QUERY = query("c1.alt.test")


def pipelined(server):
    """Three questions in one segment, then one octet by octet, on one connection."""
    with Connection(server) as connection:
        sent = [connection.framed(query(name)) for name in ("c1.alt.test", "v6.alt.test", "x.c1.alt.test")]
        connection.socket.sendall(b"".join(octets for _, octets in sent))
        replies = [connection.receive() for _ in sent]
        got = {reply.octets[:2] for reply in replies if reply}
        if got != {wanted for wanted, _ in sent}:
            return f"{len(got)} of 3 answered", "not all of three pipelined questions are answered"
        wanted, octets = connection.framed(COMMON_QUERY)
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in octets:
            connection.socket.sendall(bytes([octet]))
            time.sleep(0.001)
        reply = connection.receive()
        if reply is None or reply.octets[:2] != wanted:
            return "3 of 3, then none", "a question that comes octet by octet is not answered"
        return "3 of 3, then 1 of 1", None


def closing(server, say, seconds):
    """How long a connection lives on which no more than `say` is said."""
    with Connection(server) as connection:
        connection.socket.sendall(say)
        return connection.closed_after(seconds)


def ways(world, report):
    """The same question in other ways than over UDP from and to one IPv4 address."""
    direct = Server(OURS, servers.OURS_IPV6)
    for case, title, demand, server, asked, client, checks in (
        (1, "A c1, IPv6", "the same", direct, COMMON_QUERY, servers.CLIENT_IPV6, THREE),
        (
            27,
            "cookie of 8 octets, IPv6",
            "a cookie of 24 octets, for this address (RFC 9018, 4.4)",
            direct,
            query("c1.alt.test", edns=opt(option(COOKIE, COOKIE_OF_CLIENT))),
            servers.CLIENT_IPV6,
            (*THREE, cookie_for_ipv6),
        ),
        (
            1,
            "A c1, to any address of `listen` 0.0.0.0",
            "the reply comes from there (RFC 2181, 4.1)",
            Server(OURS, "127.77.0.1", servers.WILDCARD_PORT),
            COMMON_QUERY,
            "127.0.9.1",
            THREE,
        ),
        (
            1,
            "A c1, to any address of `listen` [::]",
            "the reply comes from there",
            Server(OURS, "fd00::2", servers.WILDCARD_PORT),
            COMMON_QUERY,
            servers.CLIENT_IPV6,
            THREE,
        ),
    ):
        for transport, reply in (
            ("UDP", server.udp(asked, client=client)),
            ("TCP", server.tcp(asked, client=client)[0]),
        ):
            report.ours(case, f"{title}, {transport}", demand, words(reply), problem_with(reply, checks))


def cookie_for_ipv6(reply):
    found = reply.options(COOKIE)
    if len(found) != 1:
        return f"there are {len(found)} cookies"
    return cookies.problem(found[0], COOKIE_OF_CLIENT, servers.CLIENT_IPV6, servers.SECRET)


LIMIT = 1.0
"""Seconds: `idle` and `message` of the fenced server."""
LATE = 0.9
"""What a busy machine may add."""
WATCHED = 3.0
"""Seconds for which the other servers are watched, whose limits are longer."""


def run(world, report):
    ways(world, report)
    seen, problem = {}, None
    for server in world.servers:
        seen[server.name], wrong = pipelined(server)
        problem = wrong if server.ours else problem
    report.case(
        33,
        "3 questions in one segment, then 1 octet by octet, TCP",
        "all answered on one connection (RFC 7766, 6.2.1)",
        seen,
        problem,
    )
    slow = {
        "nothing is said": (b"", "closed after `idle` = 1 s"),
        "a length of 0": (b"\0\0", "closed within the limits"),
        "half a message": (struct.pack(">H", len(COMMON_QUERY)) + COMMON_QUERY[:7], "closed after `message` = 1 s"),
    }
    fenced = [world.fenced.server, *world.servers[1:]]
    lives = {}
    threads = [
        threading.Thread(target=lambda s=server, t=title: lives.update({(t, s.name): closing(s, slow[t][0], WATCHED)}))
        for server in fenced
        for title in slow
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for title, (_, demand) in slow.items():
        seen = {server.name: life_words(lives[title, server.name]) for server in fenced}
        ours = lives[title, OURS]
        low = 0.0 if title == "a length of 0" else LIMIT * 0.8
        report.case(
            34,
            f"TCP, {title}",
            demand,
            seen,
            None if ours is not None and low <= ours <= 2 * LIMIT + LATE else f"it lives {life_words(ours)}",
        )
    slow_reader(world, report)
    connection_limits(world, report)


def life_words(seconds):
    return f"open after {WATCHED:.0f} s" if seconds is None else f"closed after {seconds:.1f} s"


def slow_reader(world, report):
    """Asks for far more than the kernel buffers, and reads nothing."""
    server = world.fenced.server
    with Connection(server) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.socket.settimeout(WATCHED)
        question = b"".join(connection.framed(query("all.alt.test"))[1] for _ in range(100))
        start, life = time.monotonic(), None
        try:
            while time.monotonic() - start < 3 * WATCHED:
                connection.socket.sendall(question)
        except TimeoutError:
            pass  # The server reads no more, and has not closed.
        except OSError:
            life = time.monotonic() - start
    alive = world.fenced.server.udp(COMMON_QUERY, client="127.0.3.1")
    problem = None if life is not None and alive else "the connection stays open"
    report.ours(
        34,
        "TCP, replies are not read",
        "closed after `message` = 1 s; UDP unaffected",
        life_words(life),
        problem,
    )


def connection_limits(world, report):
    """The connection idle for longest is closed when there are too many: of one client (4), and in all (8)."""
    fenced = world.fenced.server
    for title, clients, demand in (
        ("a fifth connection of one client", ["127.0.0.1"] * 5, "max_per_client = 4: its longest idle goes"),
        (
            "a ninth connection",
            ["127.0.0.1"] * 4 + ["127.0.0.2"] * 4 + ["127.0.0.3"],
            "max_connections = 8: the longest idle goes",
        ),
    ):
        # Earlier connections have to be gone, or they would count.
        time.sleep(0.2)
        connections = []
        for client in clients:
            connections.append(Connection(fenced, client))
            # Each gets a reply, so that it is known which has been idle longest.
            connections[-1].send(COMMON_QUERY)
            connections[-1].receive()
        time.sleep(0.1)
        readable = [bool(select.select([connection.socket], [], [], 0)[0]) for connection in connections]
        closed = [number for number, ended in enumerate(readable) if ended]
        alive = fenced.udp(COMMON_QUERY, client="127.0.3.1")
        for connection in connections:
            connection.socket.close()
        problem = None if closed == [0] and alive else f"closed of {len(connections)}: {closed}"
        report.ours(34, f"TCP, {title}", f"{demand}; UDP unaffected", f"closed: {ordinals(closed)}", problem)


def ordinals(numbers):
    return ", ".join(f"{number + 1}." for number in numbers) or "none"
