"""Learning: nodes that join, leave and crash, the bodies that they send, and clusters that do not answer."""

import time

import cluster
import fixture
from checks import explained, first, no_authority, problem_with, rcode
from servers import until, waited
from wire import opt, query, words


def run(world, report):
    silent_since = begin_outage(world)
    membership(world, report)
    payloads(world, report)
    outage(world, report, silent_since)


# --- Cases 5 and 36: membership -----------------------------------------------------------------------------------


BUDGET = 1.5
"""Seconds, with probes and polls each 0.2 s: two probes and a look at the list, on a busy machine."""


def addresses(server, name):
    return set(server.udp(query(name)).data("A"))


def serial(server, name):
    return int(server.udp(query(name, "SOA")).answer[0].data.split()[2])


def membership(world, report):
    zone = next(zone for zone in fixture.CHANGING if zone.name == "moves.alt.test")
    moves, ours = world.clusters[zone.name], world.ours.server
    gone, crashed = zone.nodes[3], zone.nodes[2]

    def named(address):
        return address in addresses(ours, zone.name)

    def change_of_answer(title, demand, change, wanted, address, more=lambda: None):
        before = serial(ours, zone.name)
        change()
        try:
            took = until(lambda: named(address) == wanted, title, 10)
        except TimeoutError as failure:
            report.ours(36, title, demand, "never", str(failure))
            return
        late = f"it took {took:.2f} s" if took > BUDGET else None
        grown = serial(ours, zone.name) - before
        stuck = None if grown > 0 else f"the SOA's serial grew by {grown}"
        report.ours(36, title, demand, f"after {took:.2f} s", first([late, stuck, more()]))

    unchanged = serial(ours, zone.name)
    time.sleep(0.5)
    report.ours(
        5,
        "the serial while no node changes",
        "unchanged",
        "unchanged",
        None if serial(ours, zone.name) == unchanged else "it has changed",
    )
    change_of_answer(
        "a node leaves the list",
        f"out of the answers within {BUDGET} s, the serial grows",
        lambda: moves.listed.remove(gone),
        False,
        gone,
    )
    change_of_answer(
        "a listed node's port closes", f"out within {BUDGET} s", lambda: moves.stop(crashed), False, crashed
    )
    node = moves.nodes[crashed]
    node.probes = 0
    change_of_answer(
        "it opens again",
        "back after `rise` = 2 probes",
        lambda: moves.restart(crashed),
        True,
        crashed,
        lambda: None if node.probes >= 2 else f"after {node.probes} probes",
    )
    newcomer(world, report, zone, moves, change_of_answer, named)


def newcomer(world, report, zone, moves, change_of_answer, named):
    address = "10.10.0.9"
    moves.add(address, healthy=False)
    node = moves.nodes[address]
    until(lambda: node.probes >= 4, "the newcomer is probed")
    report.ours(
        36,
        "a newcomer is listed, its `GET /` fails",
        "not answered",
        "not answered",
        "it is answered" if named(address) else None,
    )
    change_of_answer("its `GET /` succeeds", "answered", lambda: setattr(node, "healthy", True), True, address)


# --- Case 37: payloads --------------------------------------------------------------------------------------------


LISTED = b'["10.11.0.1","10.11.0.2"'
PAYLOADS = {
    "[]": (cluster.ok(b"[]"), "empty"),
    "spaces": (cluster.ok(b' [ "10.11.0.1" ,\n "10.11.0.2" ] \n'), "ok"),
    "HTML, 200": (cluster.ok(b"<html><body>10.11.0.9</body></html>"), "malformed"),
    "500": (cluster.status(b"500 Internal Server Error"), "status"),
    "10 MB": (cluster.ok(LISTED + b',"10.11.0.9"' * 800_000 + b"]"), "too_large"),
    "an object": (cluster.ok(b'{"nodes":["10.11.0.9"]}'), "malformed"),
    "a node twice": (cluster.ok(LISTED + b',"10.11.0.1"]'), "ok"),
    "a host name among addresses": (cluster.ok(LISTED + b',"node-9.internal"]'), "ok"),
    "an IPv6 node that cannot be reached": (cluster.ok(LISTED + b',"2001:db8::9"]'), "ok"),
    "numbers": (cluster.ok(b"[7, null]"), "empty"),
    "an octet each second": (cluster.ok(LISTED + b"]"), "timeout"),
}


def payloads(world, report):
    name = "faulty.alt.test"
    faulty, ours = world.clusters[name], world.ours.server
    wanted = set(faulty.listed)
    for title, (reply, result) in PAYLOADS.items():
        series = f'polls_total{{zone="{name}.",result="{result}"}}'
        before = world.ours.metric(series)
        faulty.says, faulty.pause = reply, 1.0 if title == "an octet each second" else 0.0
        # The first poll may have begun before.
        counted = waited(lambda: world.ours.metric(series) >= before + 2)
        found = addresses(ours, name)
        error = world.ours.zone(name)["last_error"]
        other_age = world.ours.zone("c1.alt.test")["last_success_seconds_ago"]
        problem = first(
            [
                None if counted else f"the metric {series} does not count it",
                None if found == wanted else f"the answer is {sorted(found)}",
                None if result == "ok" or error else "/api/zones names no error",
                None if other_age < 1 else f"the last poll of c1 was {other_age} s ago",
            ]
        )
        report.ours(
            37,
            f"/localnodes says: {title}",
            f"the same nodes are answered; counted as `{result}`; no other zone waits",
            f"{len(found)} A; {error or 'no error'}",
            problem,
        )
    faulty.says, faulty.pause = None, 0.0


# --- Case 38: an outage -------------------------------------------------------------------------------------------


QUIET = ("stale.alt.test", "spent.alt.test")
STALE_AFTER = 6.0
"""Seconds after which a zone without polls is stale: more than three refreshes and five seconds."""


def begin_outage(world):
    """Two clusters fall silent now; by the time they are asked about, their zones are stale."""
    for name in QUIET:
        world.clusters[name].stop()
    return time.monotonic()


def outage(world, report, since):
    ours = world.ours.server
    time.sleep(max(0.0, since + STALE_AFTER + 1 - time.monotonic()))
    asked = query("stale.alt.test", edns=opt())
    stale = ours.udp(asked)
    report.ours(
        38,
        "A stale, all of whose nodes are silent",
        "the last nodes, EDE 3 (RFC 8914, 4.4)",
        words(stale),
        first(
            [
                explained(3)(stale),
                None if set(stale.data("A")) == set(addresses_of("stale.alt.test")) else "other nodes",
            ]
        ),
    )
    for name, title in (
        ("spent.alt.test", "A spent, silent for longer than `max_stale` = 3 s"),
        ("scoped.alt.test", "A scoped, a zone with a `scope` that never came"),
    ):
        reply = ours.udp(query(name, edns=opt()))
        report.ours(
            38,
            title,
            "SERVFAIL, EDE 14, no SOA",
            words(reply),
            problem_with(reply, (rcode("SERVFAIL"), explained(14), no_authority)),
        )
    reply = ours.udp(query("new.alt.test"))
    seeds = set(addresses_of("new.alt.test"))
    report.ours(
        38,
        "A new, a zone that never came",
        "its seeds for at most 2 s",
        f"{words(reply)}, TTL {reply.answer and reply.answer[0].ttl}",
        first(
            [
                None if set(reply.data("A")) == seeds else "other addresses",
                None if all(record.ttl <= 2 for record in reply.answer) else "the TTL is longer",
            ]
        ),
    )


def addresses_of(name):
    return next(zone.nodes for zone in fixture.CHANGING if zone.name == name)
