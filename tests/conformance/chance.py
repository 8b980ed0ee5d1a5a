"""Chance: which address is first in an answer, and which eight of a hundred are chosen."""

import itertools
import math
import random
import socket
import struct
from collections import Counter

import fixture
from queries import PORT
from wire import query, read

SAMPLE = 3000
UNLIKELY = 4.26
"""Standard deviations that chance exceeds once in a hundred thousand runs."""


def chi_square(counts, expected, kinds):
    """A problem when the counts of so many kinds are not what an even chance gives (Wilson and Hilferty)."""
    counts = [*counts, *[0] * (kinds - len(counts))]
    value = sum((count - expected) ** 2 / expected for count in counts)
    freedom = kinds - 1
    limit = freedom * (1 - 2 / (9 * freedom) + UNLIKELY * math.sqrt(2 / (9 * freedom))) ** 3
    return None if value <= limit else f"chi-square {value:.0f} of {kinds} kinds, at most {limit:.0f}"


def answers_over_udp(server, name, count):
    """The addresses of each answer, asked over one socket, a few at a time."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        asker.connect((server.address, PORT))
        while len(found) < count:
            for _ in range(min(20, count - len(found))):
                asker.send(struct.pack(">H", random.getrandbits(16)) + query(name)[2:])
            for _ in range(min(20, count - len(found))):
                found.append(read(asker.recv(4096)).data("A"))
    return found


def answers_over_tcp(server, name, count):
    found = []
    while len(found) < count:
        messages = [query(name)] * min(100, count - len(found))
        found += [reply.data("A") for reply in server.tcp(*messages)]
    return found


def run(world, report):
    nodes = fixture.ZONES[0].nodes
    for transport, ask in (("UDP", answers_over_udp), ("TCP", answers_over_tcp)):
        seen, problem = {}, None
        for server in world.servers:
            found = ask(server, "c1.alt.test", SAMPLE)
            firsts = Counter(answer[0] for answer in found)
            seen[server.name] = " / ".join(str(firsts[node]) for node in nodes)
            if server.ours:
                problem = chi_square(firsts.values(), SAMPLE / 3, 3)
                if transport == "UDP":
                    orders = Counter(map(tuple, found))
        report.case(
            35, f"the first address in {SAMPLE:,} answers, {transport}", "each node equally often", seen, problem
        )
    report.ours(
        35,
        "the orders of 3 nodes",
        "all six, equally often: not cyclic",
        " / ".join(str(count) for count in orders.values()),
        chi_square(orders.values(), SAMPLE / 6, 6),
    )
    subsets = answers_over_udp(world.servers[0], "big.alt.test", SAMPLE)
    counts = Counter(itertools.chain.from_iterable(subsets))
    doubled = any(len(set(subset)) != 8 for subset in subsets)
    report.ours(
        35,
        f"8 of 100 nodes in {SAMPLE:,} answers",
        "each node equally often",
        f"{min(counts.values())} to {max(counts.values())} times",
        "an answer has not 8 addresses" if doubled else chi_square(counts.values(), SAMPLE * 8 / 100, 100),
    )
