"""Which node first connections go to, within one TTL and over many."""

import asyncio
import random
from collections import Counter, defaultdict

from clients import CACHING_JAVA, start_all
from resolvers import ADDRESSES, COUNTS, zone_name

WINDOWS = 40
"""Names for each value of `answers`, to each of which each client address connects once. Each stands for one TTL: a
cache has one answer for it."""


class Shares:
    """Of one client, resolver, place and value of `answers`: the nodes of the connections, by name."""

    def __init__(self):
        self.nodes = {}
        """By name and client address."""
        self.failed = 0

    def add(self, name, client, connected):
        if connected.address:
            self.nodes[name, client] = connected.address
        else:
            self.failed += 1

    @property
    def connections(self):
        return len(self.nodes)

    @property
    def within_ttl(self):
        """The share of the busiest node within one TTL, on average."""
        return mean(busiest(window[::2], window[1::2]) for window in self.by(0))

    @property
    def one_host(self):
        """The share of the busiest node of one client address over many TTLs, on average."""
        return mean(busiest(host[::2], host[1::2]) for host in self.by(1))

    @property
    def long_run(self):
        """The share of the busiest node over many TTLs."""
        windows = self.by(0)
        return busiest(sum(windows[::2], []), sum(windows[1::2], []))

    def by(self, part):
        """The nodes of each name, or of each client address."""
        found = defaultdict(list)
        for key, node in sorted(self.nodes.items()):
            found[key[part]].append(node)
        return list(found.values())


def mean(shares):
    shares = list(shares)
    return sum(shares) / len(shares)


def busiest(one, other):
    """The share of the busiest node. Each half of the connections names the node, and the other half its share: the
    largest share of a single sample would be above the true one, by chance."""
    return (share_of_busiest(one, other) + share_of_busiest(other, one)) / 2


def share_of_busiest(sample, counted):
    (node, _), *_ = Counter(sample).most_common(1)
    return counted.count(node) / len(counted)


async def measure(place, network, commands, directory):
    """The shares by resolver, client and value of `answers`."""
    found = defaultdict(Shares)
    names = {
        f"w{window}.{place.name}.{zone_name(place.layout, count, True)}": count
        for count in COUNTS
        for window in range(WINDOWS)
    }
    network.move(place, place.addresses[0])
    commands = {name: command for name, command in commands.items() if name != CACHING_JAVA}
    clients = await start_all(commands, ADDRESSES, network.hosts[place.host], directory)
    for address in place.addresses:
        network.move(place, address)
        await asyncio.gather(*[draw(client, address, names, found) for client in clients])
    await asyncio.gather(*[client.stop() for client in clients])
    return found


async def draw(client, address, names, found):
    order = list(names)
    # Another order each time: in step, rotating resolvers would give each client the same node again and again.
    random.Random(f"{client.name} {client.resolver} {address}").shuffle(order)
    for name, connected in zip(order, await client.connect_to_all(order)):
        found[client.resolver, client.name, names[name]].add(name, address, connected)

