"""Changes under load: access and rate limits, new files and bad ones, floods and a restart."""

import re
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from pathlib import Path

import cookies
import fixture
import servers
from checks import REFUSED, explained, first, problem_with, rcode
from queries import PORT
from servers import SECRET, until, waited
from wire import COOKIE, TC, opt, option, query, read, words

COMMON_QUERY = query("c1.alt.test")


def run(world, report):
    fences(world, report)
    changes(world, report)
    stall(world, report)
    restart(world, report)


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
    report.ours(
        40,
        "A c1 from outside of `clients`",
        "REFUSED, EDE 18 (RFC 8914, 4.19)",
        words(reply),
        problem_with(reply, (rcode("REFUSED"), explained(18))),
    )
    reply = fenced.udp(query("v6.alt.test", edns=opt()), client="127.0.4.1")
    report.ours(
        40,
        "A v6 from outside of the zone's `clients`",
        "REFUSED, EDE 18",
        words(reply),
        problem_with(reply, (rcode("REFUSED"), explained(18))),
    )
    for chaos in ("version.bind", "id.server"):
        reply = fenced.udp(query(chaos, "TXT", "CH"), client="127.0.7.1")
        report.ours(13, f"CH TXT {chaos}, nothing is configured", "REFUSED", words(reply), problem_with(reply, REFUSED))
    limits(world, report, fenced)


def limits(world, report, fenced):
    client = "127.0.6.1"
    found = flood(fenced, client, COMMON_QUERY)
    half = FLOOD // 4
    report.ours(
        40,
        f"{FLOOD} questions at once, `rate_limit` 5 a second, `slip` 2",
        "a few answered; of the others half truncated, half dropped",
        counted(found),
        None
        if 0 < found["answered"] <= 20 and found["truncated"] > half and found["dropped"] > half
        else "nothing is limited, or not so",
    )
    own = bytes.fromhex("2464c4abcf10c957")
    found = flood(fenced, client, query("c1.alt.test", edns=opt(option(COOKIE, own))))
    report.ours(
        40,
        "the same with a client's cookie alone",
        "BADCOOKIE in place of truncation (RFC 7873, 5.2.3)",
        counted(found),
        None if found["BADCOOKIE"] > half else "there is no BADCOOKIE",
    )
    made = own + cookies.server_part(own, client, SECRET, int(time.time()))
    nsd = next(server for server in world.servers if server.name == servers.NSD)
    given = nsd.udp(query("c1.alt.test", edns=opt(option(COOKIE, own))), client=client).options(COOKIE)[0]
    former = own + cookies.server_part(own, client, servers.FORMER_SECRET, int(time.time()))
    for title, cookie in (
        ("a cookie of the shared secret", made),
        ("a cookie that NSD has given", given),
        ("a cookie of the file's second line", former),
    ):
        found = flood(fenced, client, query("c1.alt.test", edns=opt(option(COOKIE, cookie))))
        report.ours(
            40,
            f"the same with {title}",
            "all answered (RFC 9018, 1)",
            counted(found),
            None if found["answered"] == FLOOD else "not all are answered",
        )
    for title, secret, made in (
        ("a cookie that is two hours old", SECRET, time.time() - 7200),
        ("a cookie that is ten minutes ahead", SECRET, time.time() + 600),
        ("a cookie of another secret", "0" * 32, time.time()),
    ):
        cookie = own + cookies.server_part(own, client, secret, int(made))
        found = flood(fenced, client, query("c1.alt.test", edns=opt(option(COOKIE, cookie))))
        report.ours(
            40,
            f"the same with {title}",
            "limited (RFC 9018, 4.3)",
            counted(found),
            None if found["BADCOOKIE"] > half else "it is not limited",
        )
    replies = fenced.tcp(*[COMMON_QUERY] * FLOOD, client=client)
    served = sum(reply is not None and len(reply.answer) == 3 for reply in replies)
    report.ours(
        40,
        "the same over TCP",
        "all answered: TCP proves the client's address",
        f"{served} answered",
        None if served == FLOOD else "not all are answered",
    )


# --- Case 39: changes under load ----------------------------------------------------------------------------------


RATE, LOAD_SECONDS = 3000, 8


def dnsperf(world, address, seconds, *more):
    names = world.directory / "names"
    names.write_text("c1.alt.test A\nv6.alt.test AAAA\nx.sub.alt.test A\nc1.alt.test AAAA\n")
    return subprocess.Popen(
        ["dnsperf", "-s", address, "-d", names, "-l", str(seconds), "-t", "3", "-c", "4", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
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
    report.ours(
        39,
        f"{RATE:,} questions a second meanwhile",
        "0 lost, all NOERROR",
        f"{lost} of {sent:,} lost; {codes}",
        first(
            [
                f"{lost} lost" if lost else None,
                None if codes.startswith("NOERROR") and "," not in codes else codes,
                None if sent > RATE * LOAD_SECONDS / 2 else "the load was too small",
                None if spare > 0 else f"the load ended {-spare:.1f} s before the changes",
            ]
        ),
    )


def retimed(world, ttl):
    """The configuration with another TTL in one zone."""
    text = world.text()
    section = next(zone.section() for zone in world.zones if zone.name == "sub.alt.test")
    return text.replace(section, f'{section}ttl = "{ttl}s"\n')


def answered_ttl(world):
    return world.ours.server.udp(query("sub.alt.test")).answer[0].ttl


def applied(world, report):
    file = File(world)
    for ttl, title, change in (
        (6, "written in place", file.in_place),
        (7, "renamed over", file.renamed),
        (8, "made a link", file.swapped),
        (9, "..data swapped, as by a ConfigMap", file.swapped),
    ):
        start = time.monotonic()
        change(retimed(world, ttl))
        seen = waited(lambda: answered_ttl(world) == ttl, 5)
        report.ours(
            39,
            f"the file is {title}",
            "in force by itself",
            f"after {time.monotonic() - start:.2f} s",
            None if seen else "it is not in force after 5 s",
        )
    file.swapped(retimed(world, 10))
    done = world.ours.command("reload")
    report.ours(
        40,
        "`alternator-dns reload`",
        "returns when the file is in force",
        f"status {done.returncode}, TTL {answered_ttl(world)}",
        None if (done.returncode, answered_ttl(world)) == (0, 10) else done.stderr,
    )


def refused(world, report):
    file, series = File(world), 'config_reloads_total{result="refused"}'
    good = retimed(world, 11)
    for title, bad in (
        ("is no TOML", good + "[zones"),
        ("has a zone twice", good + world.zones[0].section()),
        ("listens where NSD does", good.replace('listen = ["', f'listen = ["{servers.ADDRESSES[servers.NSD]}:53", "')),
    ):
        before = world.ours.metric(series)
        file.swapped(bad)
        done = world.ours.command("reload")
        report.ours(
            39,
            f"the file {title}",
            "refused with status 78, the gauge 0, the old one in force",
            f"status {done.returncode}, TTL {answered_ttl(world)}",
            first(
                [
                    None if done.returncode == 78 else f"status {done.returncode}: {done.stderr}",
                    None if answered_ttl(world) == 10 else "the new TTL is answered",
                    None if world.ours.metric("config_reload_success") == 0 else "config_reload_success is not 0",
                    None if world.ours.metric(series) > before else "it is not counted",
                ]
            ),
        )
    file.swapped(good)
    seen = waited(lambda: answered_ttl(world) == 11 and world.ours.metric("config_reload_success") == 1, 5)
    report.ours(
        39,
        "the file is put right",
        "in force by itself, the gauge 1",
        "in force" if seen else "not in force",
        None if seen else "it is not in force after 5 s",
    )


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
    report.ours(
        39,
        "a zone is removed",
        "REFUSED; no poll and no probe more",
        f"{words(reply)}; {sum(has) - sum(had)} more",
        first(
            [
                None if done.returncode == 0 else done.stderr,
                problem_with(reply, (rcode("REFUSED"),)),
                None if has == had else "its nodes are asked on",
            ]
        ),
    )
    world.zones = kept


# --- Case 40: restart ---------------------------------------------------------------------------------------------


MEMORY_MORE = 16 * 1024
"""kB by which a server may grow in a flood."""


def resident(process):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1])


STALL_S = 2.0
"""How long the server is stopped under a flood: long enough to fill every queue with expired questions."""

FRESH_S = 1.0
"""Bound for a question that comes after that. What the kernel queues is answered within a tenth of a second."""


def stall(world, report):
    """A server that was stopped answers new questions at once, because few old ones can have been queued."""
    ours = world.ours
    ours.process.send_signal(signal.SIGSTOP)
    dnsperf(world, ours.address, STALL_S, "-q", "60000").communicate(timeout=30)
    ours.process.send_signal(signal.SIGCONT)
    start = time.monotonic()
    reply = ours.server.udp(COMMON_QUERY)
    took = time.monotonic() - start
    late = f"after {took:.2f} s" if took > FRESH_S else None
    report.ours(
        40,
        f"A c1 after {STALL_S:.0f} s of stall under a flood",
        f"answered within {FRESH_S} s: old questions are not kept",
        f"{words(reply)} after {took * 1000:.0f} ms",
        first([problem_with(reply, (rcode("NOERROR"),)), late]),
    )


def restart(world, report):
    ours = world.ours
    before = resident(ours.process)
    text = dnsperf(world, ours.address, 3, "-q", "500").communicate(timeout=30)[0]
    more = resident(ours.process) - before
    shown = f"{figure(text, 'Queries completed') / 3:,.0f} a second, {more / 1024:+.1f} MB"
    report.ours(
        40,
        "a flood, as fast as dnsperf can, 3 s",
        "memory stays bounded: at most 16 MB more",
        shown,
        f"{more} kB more" if more > MEMORY_MORE else None,
    )
    start = time.monotonic()
    status = ours.stop()
    report.ours(
        40,
        "SIGTERM",
        "status 0",
        f"status {status} after {time.monotonic() - start:.2f} s",
        None if status == 0 else f"status {status}",
    )
    silent = ("c1.alt.test", "v6.alt.test", "stale.alt.test")
    for name in silent:
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
    report.ours(
        40,
        "a restart while the clusters are silent",
        "the nodes known before, EDE 3, as soon as READY=1 is sent",
        f"READY after {took:.2f} s: {shown}",
        first(
            [
                explained(3)(replies[0]),
                explained(3)(replies[1]),
                None if set(replies[0].data("A")) == set(fixture.ZONES[0].nodes) else "other nodes",
            ]
        ),
    )
    for name in silent:
        for address in world.clusters[name].nodes:
            world.clusters[name].restart(address)
    until(
        lambda: ours.zone("c1.alt.test")["state"] == "live" and ours.zone("v6.alt.test")["state"] == "live",
        "the clusters are back",
    )
