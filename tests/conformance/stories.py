"""What one reply does not show: connections, chance, change, failure and load."""

import itertools
import math
import random
import re
import select
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import cluster
import cookies
import fixture
import servers
from asking import PORT, Conversation
from judges import explained, first, judged, no_authority, rcode
from servers import OURS, SECRET, until
from wire import COOKIE, TC, opt, option, query, read, words

EVERYDAY = query("c1.alt.test")


def run(world, report):
    silent_since = begin_outage(world)
    connections(world, report)
    chance(world, report)
    membership(world, report)
    payloads(world, report)
    outage(world, report, silent_since)
    fences(world, report)
    changes(world, report)
    restart(world, report)


def only_ours(report, case, told, demand, seen, complaint=None):
    report.case(case, told, demand, {OURS: seen}, complaint)


def addresses(server, name, count=1, message=None):
    """What several answers name together."""
    message = message or query(name)
    return {address for _ in range(count) for address in server.udp(message).data("A")}


# --- Cases 33 and 34: connections ---------------------------------------------------------------------------------


def pipelined(server):
    """Three questions in one segment, then one octet by octet, on one connection."""
    with Conversation(server) as talk:
        told = [talk.framed(query(name)) for name in ("c1.alt.test", "v6.alt.test", "x.c1.alt.test")]
        talk.socket.sendall(b"".join(octets for _, octets in told))
        replies = [talk.hear() for _ in told]
        got = {reply.octets[:2] for reply in replies if reply}
        if got != {wanted for wanted, _ in told}:
            return f"{len(got)} of 3 answered", "not all of three pipelined questions are answered"
        wanted, octets = talk.framed(EVERYDAY)
        talk.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in octets:
            talk.socket.sendall(bytes([octet]))
            time.sleep(0.001)
        reply = talk.hear()
        if reply is None or reply.octets[:2] != wanted:
            return "3 of 3, then none", "a question that comes octet by octet is not answered"
        return "3 of 3, then 1 of 1", None


def closing(server, say, seconds):
    """How long a connection lives on which no more than `say` is said."""
    with Conversation(server) as talk:
        talk.socket.sendall(say)
        return talk.closed_after(seconds)


LIMIT = 1.0
"""Seconds: `idle` and `message` of the fenced server."""
LATE = 0.9
"""What a busy machine may add."""
WATCHED = 3.0
"""Seconds for which the other servers are watched, whose limits are longer."""


def connections(world, report):
    seen, complaint = {}, None
    for server in world.servers:
        seen[server.name], wrong = pipelined(server)
        complaint = wrong if server.ours else complaint
    report.case(33, "3 questions in one segment, then 1 octet by octet, TCP", "all answered on one connection (RFC 7766, 6.2.1)",
                seen, complaint)
    slow = {
        "nothing is said": (b"", "closed after `idle` = 1 s"),
        "a length of 0": (b"\0\0", "closed within the limits"),
        "half a message": (struct.pack(">H", len(EVERYDAY)) + EVERYDAY[:7], "closed after `message` = 1 s"),
    }
    fenced = [world.fenced.server, *world.servers[1:]]
    lives = {}
    threads = [
        threading.Thread(target=lambda s=server, t=told: lives.update({(t, s.name): closing(s, slow[t][0], WATCHED)}))
        for server in fenced for told in slow
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for told, (_, demand) in slow.items():
        seen = {server.name: life_words(lives[told, server.name]) for server in fenced}
        ours = lives[told, OURS]
        low = 0.0 if told == "a length of 0" else LIMIT * 0.8
        report.case(34, f"TCP, {told}", demand, seen,
                    None if ours is not None and low <= ours <= 2 * LIMIT + LATE else f"it lives {life_words(ours)}")
    slow_reader(world, report)
    crowds(world, report)


def life_words(seconds):
    return f"open after {WATCHED:.0f} s" if seconds is None else f"closed after {seconds:.1f} s"


def slow_reader(world, report):
    """Asks for far more than the kernel buffers, and reads nothing."""
    server = world.fenced.server
    with Conversation(server) as talk:
        talk.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        talk.socket.settimeout(WATCHED)
        question = b"".join(talk.framed(query("all.alt.test"))[1] for _ in range(100))
        start, life = time.monotonic(), None
        try:
            while time.monotonic() - start < 3 * WATCHED:
                talk.socket.sendall(question)
        except TimeoutError:
            pass  # The server reads no more, and has not closed.
        except OSError:
            life = time.monotonic() - start
    alive = world.fenced.server.udp(EVERYDAY, client="127.0.3.1")
    complaint = None if life is not None and alive else "the connection stays open"
    only_ours(report, 34, "TCP, replies are not read", "closed after `message` = 1 s; UDP unaffected", life_words(life), complaint)


def crowds(world, report):
    """The longest idle connection goes when there are too many: of one client (4), and in all (8)."""
    fenced = world.fenced.server
    for told, clients, demand in (
        ("a fifth connection of one client", ["127.0.0.1"] * 5, "max_per_client = 4: its longest idle goes"),
        ("a ninth connection", ["127.0.0.1"] * 4 + ["127.0.0.2"] * 4 + ["127.0.0.3"], "max_connections = 8: the longest idle goes"),
    ):
        # Earlier connections have to be gone, or they would count.
        time.sleep(0.2)
        talks = []
        for client in clients:
            talks.append(Conversation(fenced, client))
            # Each has been heard, so that the order of their idleness is known.
            talks[-1].say(EVERYDAY)
            talks[-1].hear()
        time.sleep(0.1)
        closed = [number for number, talk in enumerate(talks) if select.select([talk.socket], [], [], 0)[0]]
        alive = fenced.udp(EVERYDAY, client="127.0.3.1")
        for talk in talks:
            talk.socket.close()
        complaint = None if closed == [0] and alive else f"closed of {len(talks)}: {closed}"
        only_ours(report, 34, f"TCP, {told}", f"{demand}; UDP unaffected", f"closed: {ordinals(closed)}", complaint)


def ordinals(numbers):
    return ", ".join(f"{number + 1}." for number in numbers) or "none"


# --- Case 35: chance ----------------------------------------------------------------------------------------------

SAMPLE = 3000
UNLIKELY = 4.26
"""Standard deviations that chance exceeds once in a hundred thousand runs."""


def chi_square(counts, expected, kinds):
    """A complaint when the counts of so many kinds are not what an even chance gives (Wilson and Hilferty)."""
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


def chance(world, report):
    nodes = fixture.ZONES[0].nodes
    for transport, ask in (("UDP", answers_over_udp), ("TCP", answers_over_tcp)):
        seen, complaint = {}, None
        for server in world.servers:
            found = ask(server, "c1.alt.test", SAMPLE)
            firsts = Counter(answer[0] for answer in found)
            seen[server.name] = " / ".join(str(firsts[node]) for node in nodes)
            if server.ours:
                complaint = chi_square(firsts.values(), SAMPLE / 3, 3)
                if transport == "UDP":
                    orders = Counter(map(tuple, found))
        report.case(35, f"who comes first in {SAMPLE:,} answers, {transport}", "each node equally often", seen, complaint)
    only_ours(report, 35, "the orders of 3 nodes", "all six, equally often: not cyclic",
              " / ".join(str(count) for count in orders.values()), chi_square(orders.values(), SAMPLE / 6, 6))
    subsets = answers_over_udp(world.servers[0], "big.alt.test", SAMPLE)
    counts = Counter(itertools.chain.from_iterable(subsets))
    doubled = any(len(set(subset)) != 8 for subset in subsets)
    only_ours(report, 35, f"8 of 100 nodes in {SAMPLE:,} answers", "each node equally often",
              f"{min(counts.values())} to {max(counts.values())} times",
              "an answer has not 8 addresses" if doubled else chi_square(counts.values(), SAMPLE * 8 / 100, 100))


# --- Cases 5 and 36: membership -----------------------------------------------------------------------------------

BUDGET = 1.5
"""Seconds, with probes and polls each 0.2 s: two probes and a look at the list, on a busy machine."""


def serial(server, name):
    return int(server.udp(query(name, "SOA")).answer[0].data.split()[2])


def membership(world, report):
    zone = next(zone for zone in fixture.STORIES if zone.name == "moves.alt.test")
    moves, ours = world.clusters[zone.name], world.ours.server
    gone, crashed = zone.nodes[3], zone.nodes[2]

    def named(address):
        return address in addresses(ours, zone.name)

    def story(told, demand, change, wanted, address, more=lambda: None):
        before = serial(ours, zone.name)
        change()
        try:
            took = until(lambda: named(address) == wanted, told, 10)
        except TimeoutError as failure:
            only_ours(report, 36, told, demand, "never", str(failure))
            return
        late = f"it took {took:.2f} s" if took > BUDGET else None
        grown = serial(ours, zone.name) - before
        stuck = None if grown > 0 else f"the SOA's serial grew by {grown}"
        only_ours(report, 36, told, demand, f"after {took:.2f} s", first([late, stuck, more()]))

    unchanged = serial(ours, zone.name)
    time.sleep(0.5)
    only_ours(report, 5, "the serial while no node changes", "unchanged", "unchanged",
              None if serial(ours, zone.name) == unchanged else "it has changed")
    story("a node leaves the list", f"out of the answers within {BUDGET} s, the serial grows",
          lambda: moves.listed.remove(gone), False, gone)
    story("a listed node's port closes", f"out within {BUDGET} s", lambda: moves.stop(crashed), False, crashed)
    node = moves.nodes[crashed]
    node.probes = 0
    story("it opens again", "back after `rise` = 2 probes", lambda: moves.restart(crashed), True, crashed,
          lambda: None if node.probes >= 2 else f"after {node.probes} probes")
    newcomer(world, report, zone, moves, story, named)


def newcomer(world, report, zone, moves, story, named):
    address = "10.10.0.9"
    moves.add(address, healthy=False)
    node = moves.nodes[address]
    until(lambda: node.probes >= 4, "the newcomer is probed")
    only_ours(report, 36, "a newcomer is listed, its `GET /` fails", "not answered", "not answered",
              "it is answered" if named(address) else None)
    story("its `GET /` succeeds", "answered", lambda: setattr(node, "healthy", True), True, address)


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
    "an IPv6 node that nobody reaches": (cluster.ok(LISTED + b',"2001:db8::9"]'), "ok"),
    "numbers": (cluster.ok(b"[7, null]"), "empty"),
    "an octet each second": (cluster.ok(LISTED + b"]"), "timeout"),
}


def payloads(world, report):
    name = "faulty.alt.test"
    faulty, ours = world.clusters[name], world.ours.server
    wanted = set(faulty.listed)
    for told, (reply, result) in PAYLOADS.items():
        series = f'polls_total{{zone="{name}.",result="{result}"}}'
        before = world.ours.metric(series)
        faulty.says, faulty.pause = reply, 1.0 if told == "an octet each second" else 0.0
        # The first poll may have begun before.
        counted = waited(lambda: world.ours.metric(series) >= before + 2)
        found = addresses(ours, name)
        error = world.ours.zone(name)["last_error"]
        neighbour = world.ours.zone("c1.alt.test")["last_success_seconds_ago"]
        complaint = first([
            None if counted else f"the metric {series} does not count it",
            None if found == wanted else f"the answer is {sorted(found)}",
            None if result == "ok" or error else "/api/zones names no error",
            None if neighbour < 1 else f"c1 was last heard of {neighbour} s ago",
        ])
        only_ours(report, 37, f"/localnodes says: {told}", f"the same nodes are answered; counted as `{result}`; no other zone waits",
                  f"{len(found)} A; {error or 'no error'}", complaint)
    faulty.says, faulty.pause = None, 0.0


def waited(condition, seconds=8):
    try:
        until(condition, "", seconds)
    except TimeoutError:
        return False
    return True


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
    only_ours(report, 38, "A stale, all of whose nodes are silent", "the last nodes, EDE 3 (RFC 8914, 4.4)", words(stale), first([
        explained(3)(stale), None if set(stale.data("A")) == set(addresses_of("stale.alt.test")) else "other nodes",
    ]))
    for name, told in (("spent.alt.test", "A spent, silent for longer than `max_stale` = 3 s"),
                       ("scoped.alt.test", "A scoped, a zone with a `scope` that never came")):
        reply = ours.udp(query(name, edns=opt()))
        only_ours(report, 38, told, "SERVFAIL, EDE 14, no SOA", words(reply),
                  judged(reply, (rcode("SERVFAIL"), explained(14), no_authority)))
    reply = ours.udp(query("new.alt.test"))
    seeds = set(addresses_of("new.alt.test"))
    only_ours(report, 38, "A new, a zone that never came", "its seeds for at most 2 s", f"{words(reply)}, TTL {reply.answer and reply.answer[0].ttl}", first([
        None if set(reply.data("A")) == seeds else "other addresses",
        None if all(record.ttl <= 2 for record in reply.answer) else "the TTL is longer",
    ]))


def addresses_of(name):
    return next(zone.nodes for zone in fixture.STORIES if zone.name == name)


# --- Case 40: fences ----------------------------------------------------------------------------------------------

FLOOD = 60
"""Questions at once from one client, which may ask five in a second."""


def flood(server, client, message, count=FLOOD):
    """What becomes of many questions at once: answered, truncated, refused a cookie, or dropped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.bind((client, 0))
        asker.connect((server.address, PORT))
        for number in range(count):
            asker.send(struct.pack(">H", number) + message[2:])
        found = Counter()
        asker.settimeout(0.5)
        try:
            while sum(found.values()) < count:
                reply = read(asker.recv(4096))
                found["truncated" if reply.has(TC) else "answered" if reply.answer else reply.rcode] += 1
        except OSError:
            pass
        found["dropped"] = count - sum(found.values())
        return found


def counted(found):
    return ", ".join(f"{count} {word}" for word, count in found.items() if count)


def fences(world, report):
    fenced, asked = world.fenced.server, query("c1.alt.test", edns=opt())
    reply = fenced.udp(asked, client="127.9.0.1")
    only_ours(report, 40, "A c1 from outside of `clients`", "REFUSED, EDE 18 (RFC 8914, 4.19)", words(reply),
              judged(reply, (rcode("REFUSED"), explained(18))))
    reply = fenced.udp(query("v6.alt.test", edns=opt()), client="127.0.4.1")
    only_ours(report, 40, "A v6 from outside of the zone's `clients`", "REFUSED, EDE 18", words(reply),
              judged(reply, (rcode("REFUSED"), explained(18))))
    limits(world, report, fenced)


def limits(world, report, fenced):
    client = "127.0.6.1"
    found = flood(fenced, client, EVERYDAY)
    half = FLOOD // 4
    only_ours(report, 40, f"{FLOOD} questions at once, `rate_limit` 5 a second, `slip` 2", "a few answered; of the others half truncated, half dropped",
              counted(found), None if 0 < found["answered"] <= 20 and found["truncated"] > half and found["dropped"] > half
              else "nothing is limited, or not so")
    own = bytes.fromhex("2464c4abcf10c957")
    found = flood(fenced, client, query("c1.alt.test", edns=opt(option(COOKIE, own))))
    only_ours(report, 40, "the same with a client's cookie alone", "BADCOOKIE in place of truncation (RFC 7873, 5.2.3)",
              counted(found), None if found["BADCOOKIE"] > half else "there is no BADCOOKIE")
    made = own + cookies.server_part(own, client, SECRET, int(time.time()))
    nsd = next(server for server in world.servers if server.name == servers.NSD)
    given = nsd.udp(query("c1.alt.test", edns=opt(option(COOKIE, own))), client=client).options(COOKIE)[0]
    for told, cookie in (("a cookie of the shared secret", made), ("a cookie that NSD has given", given)):
        found = flood(fenced, client, query("c1.alt.test", edns=opt(option(COOKIE, cookie))))
        only_ours(report, 40, f"the same with {told}", "all answered (RFC 9018, 1)", counted(found),
                  None if found["answered"] == FLOOD else "not all are answered")
    replies = fenced.tcp(*[EVERYDAY] * FLOOD, client=client)
    served = sum(reply is not None and len(reply.answer) == 3 for reply in replies)
    only_ours(report, 40, "the same over TCP", "all answered: TCP proves the client's address", f"{served} answered",
              None if served == FLOOD else "not all are answered")


# --- Case 39: changes under load ----------------------------------------------------------------------------------

RATE, LOAD_SECONDS = 3000, 8


def dnsperf(world, address, seconds, *more):
    names = world.directory / "names"
    names.write_text("c1.alt.test A\nv6.alt.test AAAA\nx.sub.alt.test A\nc1.alt.test AAAA\n")
    return subprocess.Popen(
        ["dnsperf", "-s", address, "-d", names, "-l", str(seconds), "-t", "3", "-c", "4", *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )


def figure(text, what):
    return int(re.search(rf"{what}: +(\d+)", text)[1])


class File:
    """The configuration, changed in the ways in which files are changed."""

    def __init__(self, world):
        self.path = world.ours.config
        self.directory = world.ours.directory

    def in_place(self, text):
        self.path.write_text(text)

    def renamed(self, text):
        new = self.directory / ".new"
        new.write_text(text)
        new.replace(self.path)

    def swapped(self, text):
        """As a ConfigMap changes: a link to a directory is replaced."""
        content = self.directory / f"..{time.monotonic_ns()}"
        content.mkdir()
        (content / "config.toml").write_text(text)
        link(self.directory / "..data", content.name)
        if not self.path.is_symlink():
            link(self.path, "..data/config.toml")


def link(path, target):
    new = path.with_name(path.name + ".link")
    new.symlink_to(target)
    new.replace(path)


def changes(world, report):
    load = dnsperf(world, world.ours.address, LOAD_SECONDS, "-Q", str(RATE))
    start = time.monotonic()
    applied(world, report)
    refused(world, report)
    removed(world, report)
    spare = LOAD_SECONDS - (time.monotonic() - start)
    text = load.communicate(timeout=30)[0]
    lost, sent = figure(text, "Queries lost"), figure(text, "Queries sent")
    codes = re.search(r"Response codes: +(.*)", text)[1]
    only_ours(report, 39, f"{RATE:,} questions a second meanwhile", "0 lost, all NOERROR", f"{lost} of {sent:,} lost; {codes}",
              first([f"{lost} lost" if lost else None, None if codes.startswith("NOERROR") and "," not in codes else codes,
                     None if sent > RATE * LOAD_SECONDS / 2 else "the load was too small", None if spare > 0 else
                     f"the load ended {-spare:.1f} s before the changes"]))


def retimed(world, ttl):
    """The configuration with another TTL in one zone."""
    text = world.text()
    section = next(zone.section() for zone in world.zones if zone.name == "sub.alt.test")
    return text.replace(section, f'{section}ttl = "{ttl}s"\n')


def told_ttl(world):
    return world.ours.server.udp(query("sub.alt.test")).answer[0].ttl


def applied(world, report):
    file = File(world)
    for ttl, told, change in (
        (6, "written in place", file.in_place), (7, "renamed over", file.renamed), (8, "made a link", file.swapped),
        (9, "..data swapped, as by a ConfigMap", file.swapped),
    ):
        start = time.monotonic()
        change(retimed(world, ttl))
        seen = waited(lambda: told_ttl(world) == ttl, 5)
        only_ours(report, 39, f"the file is {told}", "in force by itself", f"after {time.monotonic() - start:.2f} s",
                  None if seen else "it is not in force after 5 s")
    file.swapped(retimed(world, 10))
    done = world.ours.command("reload")
    only_ours(report, 40, "`alternator-dns reload`", "returns when the file is in force", f"status {done.returncode}, TTL {told_ttl(world)}",
              None if (done.returncode, told_ttl(world)) == (0, 10) else done.stderr)


def refused(world, report):
    file = File(world)
    good = retimed(world, 11)
    for told, bad in (
        ("is no TOML", good + "[zones"),
        ("has a zone twice", good + world.zones[0].section()),
        ("listens where NSD does", good.replace('listen = ["', f'listen = ["{servers.ADDRESSES[servers.NSD]}:53", "')),
    ):
        before = world.ours.metric('config_reloads_total{result="refused"}')
        file.swapped(bad)
        done = world.ours.command("reload")
        only_ours(report, 39, f"the file {told}", "refused with status 78, the gauge 0, the old one in force",
                  f"status {done.returncode}, TTL {told_ttl(world)}", first([
                      None if done.returncode == 78 else f"status {done.returncode}: {done.stderr}",
                      None if told_ttl(world) == 10 else "the new TTL is answered",
                      None if world.ours.metric("config_reload_success") == 0 else "the gauge config_reload_success is not 0",
                      None if world.ours.metric('config_reloads_total{result="refused"}') > before else "it is not counted",
                  ]))
    file.swapped(good)
    seen = waited(lambda: told_ttl(world) == 11 and world.ours.metric("config_reload_success") == 1, 5)
    only_ours(report, 39, "the file is put right", "in force by itself, the gauge 1", "in force" if seen else "not in force",
              None if seen else "it is not in force after 5 s")


def removed(world, report):
    name = "moves.alt.test"
    kept = [zone for zone in world.zones if zone.name != name]
    File(world).swapped(world.text(kept))
    done = world.ours.command("reload")
    reply = world.ours.server.udp(query(name))
    moves = world.clusters[name]
    # What was under way may still come.
    time.sleep(0.3)
    had = moves.polls, sum(node.probes for node in moves.nodes.values())
    time.sleep(1.0)
    has = moves.polls, sum(node.probes for node in moves.nodes.values())
    only_ours(report, 39, "a zone is removed", "REFUSED; no poll and no probe more", f"{words(reply)}; {sum(has) - sum(had)} more", first([
        None if done.returncode == 0 else done.stderr, judged(reply, (rcode("REFUSED"),)),
        None if has == had else "its nodes are asked on",
    ]))
    world.zones = kept


# --- Case 40: restart ---------------------------------------------------------------------------------------------

MEMORY_MORE = 16 * 1024
"""kB by which a server may grow in a flood."""


def resident(process):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1])


def restart(world, report):
    ours = world.ours
    before = resident(ours.process)
    text = dnsperf(world, ours.address, 3, "-q", "500").communicate(timeout=30)[0]
    more = resident(ours.process) - before
    told = f"{figure(text, 'Queries completed') / 3:,.0f} a second, {more / 1024:+.1f} MB"
    only_ours(report, 40, "a flood, as fast as dnsperf can, 3 s", "memory stays bounded: at most 16 MB more", told,
              f"{more} kB more" if more > MEMORY_MORE else None)
    start = time.monotonic()
    status = ours.stop()
    only_ours(report, 40, "SIGTERM", "status 0", f"status {status} after {time.monotonic() - start:.2f} s",
              None if status == 0 else f"status {status}")
    for name in ("c1.alt.test", "v6.alt.test"):
        world.clusters[name].stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        path = world.directory / "notify"
        systemd.bind(str(path))
        systemd.settimeout(10)
        start = time.monotonic()
        ours.start(NOTIFY_SOCKET=str(path))
        while b"READY=1" not in systemd.recv(4096):
            pass
        took = time.monotonic() - start
        replies = [ours.server.udp(query(name, edns=opt())) for name in ("c1.alt.test", "stale.alt.test")]
    shown = "; ".join(words(reply) for reply in replies)
    only_ours(report, 40, "a restart while the clusters are silent", "the nodes known before, EDE 3, as soon as READY=1 is told",
              f"READY after {took:.2f} s: {shown}", first([
                  explained(3)(replies[0]), explained(3)(replies[1]),
                  None if set(replies[0].data("A")) == set(fixture.ZONES[0].nodes) else "other nodes",
              ]))
    for name in ("c1.alt.test", "v6.alt.test"):
        for address in world.clusters[name].nodes:
            world.clusters[name].restart(address)
    until(lambda: ours.zone("c1.alt.test")["state"] == "live" and ours.zone("v6.alt.test")["state"] == "live", "the clusters are back")
