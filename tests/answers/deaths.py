"""What connections meet when a node dies: fail, wait, or succeed; before this server has noticed, and after."""

import asyncio
import random
import time
from collections import defaultdict
from dataclasses import dataclass

from clients import start_all
from network import LAYOUTS
from resolvers import ADDRESSES, COUNTS, all_up, until, without, zone_name

PLACES = ("far4",)
"""Where no client sorts addresses, so that every node is as likely to be the one that died."""
MODES = ("refuses", "silent")
VICTIMS = 5
NAMES = 8
"""For each value of `answers`. A cache has one answer for each name at a time."""
PER_SECOND = 2.0
"""Connections of one client through one resolver for one value of `answers`."""
BEFORE = 6.0
"""Seconds that names are in use before the node dies: more than a TTL, so that the times of their caches differ."""
AFTER = 10.0
"""Seconds after it that connections are begun."""
RETURN_MAX = 90.0
"""Seconds until all nodes are answered again: on a busy machine nodes fail probes, too, and then return later."""
WAIT = 1.0
"""A connection that takes longer has waited."""


@dataclass
class Attempt:
    began: float
    """Seconds after the death."""
    noticed: bool
    """Whether the node had left the answers of this server."""
    connected: object

    @property
    def failed(self):
        return not self.connected.address

    @property
    def waited(self):
        return not self.failed and self.connected.seconds > WAIT


async def measure(place, network, commands, directory):
    """The attempts by mode, resolver, client and value of `answers`; and the seconds until this server noticed, by
    mode."""
    found, noticed = defaultdict(list), defaultdict(list)
    network.move(place, place.addresses[0])
    clients = await start_all(commands, ADDRESSES, network.hosts[place.host], directory)
    for mode in MODES:
        for victim in random.Random(mode).sample(LAYOUTS[place.layout], VICTIMS):
            noticed[mode].append(await kill(network, victim, mode, clients, found))
    await asyncio.gather(*[client.stop() for client in clients])
    return found, noticed


async def kill(network, victim, mode, clients, found):
    """One node dies under load, and lives again. Gives the seconds until this server noticed."""
    start = time.monotonic() + BEFORE
    loads = [asyncio.create_task(load(client, count, start)) for client in clients for count in COUNTS]
    await asyncio.sleep(start - time.monotonic())
    network.kill(victim, silent=mode == "silent")
    start = time.monotonic()
    noticed = await asyncio.to_thread(until, lambda: without(victim), f"{victim} leaves the answers")
    for attempts in await asyncio.gather(*loads):
        for client, count, began, connected in attempts:
            if began > start:
                attempt = Attempt(began - start, began - start > noticed, connected)
                found[mode, client.resolver, client.name, count].append(attempt)
    network.revive()
    await asyncio.to_thread(until, all_up, "all nodes are answered again", RETURN_MAX)
    return noticed


async def load(client, count, death):
    """Connects at a steady rate until some time after the death."""
    chance = random.Random(f"{client.name} {client.resolver} {count}")
    attempts = []

    async def one(name):
        began = time.monotonic()
        attempts.append((client, count, began, await client.connect(name)))

    tasks = []
    due = death - BEFORE + chance.random() / PER_SECOND
    while due < death + AFTER:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        name = f"r{chance.randrange(NAMES)}.{zone_name('v4', count, False)}"
        tasks.append(asyncio.create_task(one(name)))
        due += 1 / PER_SECOND
    await asyncio.gather(*tasks)
    return attempts
