"""Three instances with the same file: they agree within two refreshes after each change of the cluster."""

import threading
import time
from functools import partial

from cluster import Cluster
from network import Host, address
from servers import Resolver, until, waited

COUNT = 3
ZONE = "replicas.example.com"
REFRESH = 1.0
BUSY = 0.5
"""Seconds that the test itself may add: it sees a change when it next asks."""
CHANGES = 8
LATE = 1
"""Changes that may take longer, where a busy machine lets a replica wait."""
NODES = [f"10.0.1.{number}" for number in range(10, 15)]


def run(program, directory, report):
    address(*NODES, *[f"10.0.1.{20 + number}" for number in range(CHANGES // 2)])
    cluster = Cluster(NODES)
    replicas = [start(program, directory, number) for number in range(COUNT)]
    until(lambda: all(answered(replica) == set(NODES) for replica in replicas), "all replicas know all nodes", 60)
    times = sorted(change(cluster, replicas, number) for number in range(CHANGES))
    for total, apart in times:
        print(f"    {total:.2f} s after a change, {apart:.2f} s between the first and the last")
    most = times[-1 - LATE][0]
    bound = 2 * REFRESH + BUSY
    sentence = f"within two refreshes: {most:.1f} s, in {CHANGES - LATE} of {CHANGES} changes"
    report.check(f"three replicas answer the same nodes {sentence}", None if most <= bound else f"more than {bound} s")
    same = waited(partial(compare, replicas), 10)
    report.check("status --compare finds no difference", None if same else "it does")
    replicas[0].command("drain", NODES[0], "--for", "1m")
    report.check("and finds a drain of one replica", "it does not" if compare(replicas) else None)


def start(program, directory, number):
    """An instance on a host of its own: all have the same file."""
    host = Host()
    replica = Resolver(program, directory / f"replica-{number}", host.address)
    replica.write(f"""\
[server]
listen = ["0.0.0.0:53"]
admin = "0.0.0.0:9153"

[zones."{ZONE}"]
seeds = ["{NODES[0]}", "{NODES[1]}"]
""")
    starter = threading.Thread(target=lambda: (host.enter(), replica.start()))
    starter.start()
    starter.join()
    return replica


def answered(replica):
    return {node["address"] for node in replica.zone(ZONE)["nodes"] if node["answered"]}


def change(cluster, replicas, number):
    """A new node joins, or crashes; seconds until the last replica answers so, and from the first to the last. Each time
    it is another node: one that crashes often returns later."""
    node = f"10.0.1.{20 + number // 2}"
    if number % 2 == 0:
        cluster.add(node)
    else:
        cluster.stop(node)
        cluster.listed.remove(node)
    began = time.monotonic()
    seen = {}

    def all_have_seen():
        for replica in replicas:
            if replica.address not in seen and answered(replica) == set(cluster.listed):
                seen[replica.address] = time.monotonic() - began
        return len(seen) == len(replicas)

    until(all_have_seen, "all replicas answer the same", 60)
    return max(seen.values()), max(seen.values()) - min(seen.values())


def compare(replicas):
    """Whether the first replica answers as each of the others does, in the words of its own command."""
    first, *others = replicas
    compared = [first.command("status", "--compare", f"http://{other.address}:9153") for other in others]
    return all(each.returncode == 0 for each in compared)
