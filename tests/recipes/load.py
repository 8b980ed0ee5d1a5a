"""How many requests replicas send to a node: counted at the nodes, beside the formula of packaging/deployment.md."""

import time

from cluster import Cluster
from servers import CHILDREN, spawn, until

NODES = 3
"""Of each cluster."""
RUNS = [(1, 1, 1, 1), (1, 20, 20, 1), (3, 10, 10, 1), (10, 3, 3, 1), (1, 20, 1, 1), (3, 10, 1, 1), (50, 1, 1, 5)]
"""Replicas, zones, the clusters that the zones share, and seconds between polls and between probes: so few requests that the
nodes, which are Python, keep up."""
SETTLED = 10.0
"""Seconds until what is asked only at a start is over: new nodes, and zones whose seeds are asked for the first time."""
COUNTED = 40.0
"""Seconds."""
TOLERANCE = 0.15


def run(program, directory, report):
    for size in RUNS:
        measure(program, directory, report, size)


def formula(replicas, zones, every):
    """Requests a second to a node of a cluster that so many zones ask."""
    return replicas * (zones / (every * NODES) + 1 / every + 1 / 30 + 1 / 60)


def measure(program, directory, report, size):
    replicas, zones, count, every = size
    clusters = [Cluster(nodes_of(number)) for number in range(count)]
    text = f'[defaults]\nrefresh = "{every}s"\nhealth = {{ interval = "{every}s" }}\n'
    text += "".join(zone_text(number, nodes_of(number % count)) for number in range(zones))
    own = directory / "-".join(map(str, size))
    children = [start(program, own / str(number), number, text) for number in range(replicas)]
    until(lambda: all(requests(cluster) > replicas for cluster in clusters), "all clusters are asked", 120)
    time.sleep(SETTLED)
    before, began = total(clusters), time.monotonic()
    time.sleep(COUNTED)
    rate = (total(clusters) - before) / (time.monotonic() - began) / (count * NODES)
    for child in children:
        child.terminate()
        child.wait()
        CHILDREN.remove(child)
    for cluster in clusters:
        cluster.stop()
    expected = formula(replicas, zones // count, every)
    problem = None if abs(rate / expected - 1) <= TOLERANCE else "they differ"
    report.check(f"{name_of(size)}: {rate:.2f} requests a second to a node, by the formula {expected:.2f}", problem)


def name_of(size):
    replicas, zones, count, every = size
    return f"{replicas} replicas, {zones} zones of {count} clusters, every {every} s"


def nodes_of(number):
    return [f"127.4.{number}.{host}" for host in range(1, NODES + 1)]


def requests(cluster):
    return cluster.polls + sum(node.probes for node in cluster.nodes.values())


def total(clusters):
    return sum(requests(cluster) for cluster in clusters)


def zone_text(number, seeds):
    return f'[zones."z{number}.example.com"]\nseeds = {seeds}\n'.replace("'", '"')


def start(program, own, number, text):
    own.mkdir(parents=True)
    listen = f"127.5.{number // 200}.{number % 200 + 1}:53"
    (own / "config.toml").write_text(f'[server]\nlisten = ["{listen}"]\n{text}')
    words = [program, "run", "--config", own / "config.toml", "--log", "warn"]
    return spawn(own, "alternator-dns.log", *words, RUNTIME_DIRECTORY=str(own))
