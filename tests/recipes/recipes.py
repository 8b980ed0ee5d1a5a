"""Each recipe with its neighbour: what a client of the neighbour sees, and what it sees without the lines that matter."""

import os
import subprocess
import threading
import time
import traceback
from functools import partial

import blocks
import neighbours
import parents
from cluster import Cluster
from network import Host, address, ask
from neighbours import Setting
from parents import OTHER_ADDRESS, OTHER_NAME
from servers import spawn, until
from wire import AD, DO, TC, opt, words

ZONE = "alternator.east.example.com"
SERVER = "192.0.2.53"
STUB = "127.0.0.53"
"""Where systemd-resolved listens."""
FIRST, SECOND = "10.0.1.10", "10.0.1.11"
PATIENCE = 60.0
TTL = 4.0
OUT = 3.0
"""Seconds until the server itself answers no more with a node that refuses connections, on a busy machine."""
SLOW = 1.5
"""More seconds, for a machine that is busy."""


class Trial:
    """A neighbour on a host of its own, and what was found there."""

    def __init__(self, name, start, *, check=None, others=True, validates=False, server="127.0.0.1", addresses=()):
        self.name, self.start, self.others, self.validates = name, start, others, validates
        self.check = check or self.follows
        self.server, self.addresses = server, addresses
        self.ready = threading.Event()
        self.found = []

    def run(self, setting, changed):
        """In a thread of its own."""
        self.setting = setting
        try:
            self.host = Host(*self.addresses)
            if self.name.startswith("systemd-resolved"):
                self.host.link("eth1", f"10.8.{self.host.number}")
                self.host.run("ip", "route", "replace", SERVER, "via", f"10.8.{self.host.number}.1")
            self.host.enter()
            self.start(setting, setting.of(self.name))
            if self.others:
                found = lambda: self.addresses_of(OTHER_NAME) == [OTHER_ADDRESS]  # noqa: E731
                until(found, f"{self.name} finds other names", PATIENCE)
            self.check(changed)
        except Exception as failure:
            traceback.print_exc()
            self.say("comes to its end", f"{type(failure).__name__}: {failure}")
        finally:
            self.ready.set()

    def say(self, sentence, problem=None):
        self.found.append((f"{self.name}: {sentence}", problem))

    def demand(self, sentence, holds, seen):
        self.say(sentence, None if holds else f"seen: {seen}")

    def asked_for(self, prefix):
        """Lines of this server's log about queries for other names that begin so."""
        lines = self.setting.log.read_text().splitlines()
        return [line for line in lines if prefix in line and "example.com" in line]

    def ask(self, name=ZONE, qtype="A", **rest):
        return ask(name, qtype, self.server, **rest)

    def addresses_of(self, name=ZONE):
        reply = self.ask(name)
        return reply and reply.data("A")

    def follows(self, changed):
        """The recipe works: the right answers, and a change of the cluster within the TTL."""
        until(lambda: self.addresses_of() == [FIRST], f"{self.name} answers", PATIENCE)
        self.say("answers with the cluster's node")
        reply = self.ask(qtype="AAAA")
        nodata = reply and (reply.rcode, reply.answer) == ("NOERROR", [])
        self.demand("the other family is NODATA", nodata, words(reply))
        reply = self.ask(f"x.{ZONE}")
        self.demand("a name below the zone is NXDOMAIN", reply and reply.rcode == "NXDOMAIN", words(reply))
        if self.validates:
            self.validation()
        reply = until_reply(self.ask)
        ttls = [record.ttl for record in reply.answer]
        self.demand("no TTL is longer than the zone's", bool(ttls) and max(ttls) <= TTL, f"TTLs {ttls}")
        self.ready.set()
        changed.wait()
        until(lambda: self.addresses_of() == [SECOND], f"{self.name} follows a change", PATIENCE)
        took = time.monotonic() - changed.at
        self.demand(f"follows a change after {took:.1f} s", took <= TTL + OUT + SLOW, f"more than {TTL + OUT + SLOW} s")

    def validation(self):
        reply = until_reply(lambda: self.ask(OTHER_NAME, edns=opt(flags=DO)))
        self.demand("the parent's names are validated", reply.has(AD), words(reply))
        reply = until_reply(lambda: self.ask(edns=opt(flags=DO)))
        fine = reply.rcode == "NOERROR" and reply.data("A") == [FIRST] and not reply.has(AD)
        self.demand("the zone's are insecure, and answered", fine, words(reply))

    def is_needed(self, sentence, wanted):
        """What a client sees without a line of the recipe."""

        def check(_):
            seen = []

            def holds():
                seen[:] = [self.ask(seconds=5.0)]
                return wanted(seen[0])

            try:
                until(holds, "", PATIENCE / 3)
            except TimeoutError:
                pass
            self.demand(sentence, wanted(seen[0]), words(seen[0]))

        self.check = check
        return self


def until_reply(question):
    replies = []
    until(lambda: replies.append(question()) or replies[-1] is not None, "there is a reply", PATIENCE)
    return replies[-1]


def servfail(reply):
    return reply is not None and reply.rcode == "SERVFAIL"


def no_address(reply):
    return reply is not None and not reply.data("A")


class Change(threading.Event):
    """That the cluster has changed."""

    at = None
    """When."""


def trials(text):
    """All of them; `text` are the recipes."""
    stub, forward = text["unbound-stub"], text["unbound-forward"]
    exemptions = stub[: stub.index("stub-zone:")]
    private = blocks.without(exemptions, "domain-insecure")
    exempt = text["bind-options"]
    dnsmasq, coredns, link = text["dnsmasq"], text["coredns"], text["systemd-resolved"]
    one_line_cache = "".join(coredns.partition("cache 30")[:2]) + "\n}\n"
    return [
        recipe("unbound, stub-zone", neighbours.unbound, stub, validates=True),
        recipe("unbound, forward-zone", neighbours.unbound, exemptions + forward, validates=True),
        recipe("unbound without domain-insecure", neighbours.unbound, blocks.without(stub, "domain-insecure")).is_needed(
            "SERVFAIL, because the signed parent does not know the name", servfail
        ),
        recipe("unbound without private-domain", neighbours.unbound, blocks.without(stub, "private-domain")).is_needed(
            "no address, because it is private", no_address
        ),
        recipe("BIND, forward", neighbours.bind, text["bind-forward"], validates=True, options=exempt),
        recipe("BIND, static-stub", neighbours.bind, text["bind-static-stub"], validates=True, options=exempt),
        recipe("BIND without validate-except", neighbours.bind, text["bind-static-stub"]).is_needed(
            "SERVFAIL, because the signed parent does not know the name", servfail
        ),
        recipe("dnsmasq", neighbours.dnsmasq, dnsmasq, validates=True),
        recipe("dnsmasq without rebind-domain-ok", neighbours.dnsmasq, blocks.without(dnsmasq, "rebind-domain-ok")).is_needed(
            "no address, because it is private", no_address
        ),
        recipe("CoreDNS", neighbours.coredns, coredns),
        recipe("CoreDNS without a minimum TTL of 0", neighbours.coredns, one_line_cache).is_needed(
            "a TTL of 5 s, in place of 4 s",
            lambda reply: bool(reply and reply.answer) and reply.answer[0].ttl == 5,
        ),
        Link("systemd-resolved", link),
        Unexempted("systemd-resolved without the negative trust anchor", link).is_needed(
            "SERVFAIL, because the signed parent does not know the name", servfail
        ),
        Limited("dnsdist", text["dnsdist"]),
        *[
            recipe(f"the delegation in {parent}, {name}", start, text, root=root, validates=True)
            for parent, root in (("NSD", parents.NSD), ("Knot", parents.KNOT))
            for name, start, text in (("unbound", neighbours.unbound, private), ("BIND", neighbours.bind, ""))
        ],
        recipe("BIND without the delegation", neighbours.bind, "").is_needed(
            "NXDOMAIN", lambda reply: reply is not None and reply.rcode == "NXDOMAIN"
        ),
        GlobalScope("systemd-resolved, global scope", link),
    ]


def recipe(name, start, text, *, validates=False, **options):
    return Trial(name, partial(start, recipe=text, **options), validates=validates)


class Unexempted(Trial):
    """systemd-resolved with DNSSEC=yes and the recipe alone."""

    def __init__(self, name, text):
        super().__init__(name, partial(neighbours.resolved, recipe=text), server=STUB)


class Limited(Trial):
    """dnsdist, and its limit on the queries of one client."""

    LISTEN, BUSY_CLIENT = "10.0.0.53", "10.0.0.7"
    BURST = 600

    def __init__(self, name, text):
        start = partial(neighbours.dnsdist, recipe=text)
        super().__init__(name, start, others=False, server=self.LISTEN, addresses=(self.LISTEN, self.BUSY_CLIENT))

    def follows(self, changed):
        until(lambda: self.addresses_of() == [FIRST], "dnsdist answers", PATIENCE)
        self.say("answers with the cluster's node")
        replies = [self.ask(client=self.BUSY_CLIENT, seconds=0.5) for _ in range(self.BURST)]
        truncated = sum(reply is not None and reply.has(TC) for reply in replies)
        self.demand(f"{truncated} of {self.BURST} queries in a burst are sent to TCP", truncated > 0, "none")
        self.demand("another client is answered", self.addresses_of() == [FIRST], words(self.ask()))
        self.ready.set()
        changed.wait()
        until(lambda: self.addresses_of() == [SECOND], "dnsdist follows a change", PATIENCE)
        took, most = time.monotonic() - changed.at, OUT + SLOW
        self.demand(f"follows a change after {took:.1f} s, without a cache", took <= most, f"more than {most} s")


class GlobalScope(Trial):
    """Why the recipe is of a link: this server is asked for other names, too, and refuses them."""

    def __init__(self, name, text):
        scope = "".join(line for line in text.splitlines(keepends=True) if line.startswith(("DNS=", "Domains=")))
        start = partial(neighbours.resolved, recipe="", scope=scope, exempt=ZONE + "\n")
        super().__init__(name, start, others=False, server=STUB)

    def follows(self, changed):
        until(lambda: self.addresses_of() == [FIRST], f"{self.name} answers", PATIENCE)
        for number in range(20):
            self.ask(f"other{number}.example.com", seconds=0.5)
        until(lambda: self.asked_for("other"), f"{self.name} asks for other names", PATIENCE / 3)
        self.say("other names are asked of this server, too, which refuses them")


class Link(Trial):
    """systemd-resolved with the recipe: other names never reach this server."""

    def __init__(self, name, text):
        start = partial(neighbours.resolved, recipe=text, exempt=ZONE + "\n")
        super().__init__(name, start, validates=True, server=STUB)

    def follows(self, changed):
        super().follows(changed)
        for number in range(20):
            self.ask(f"link{number}.example.com", seconds=0.5)
        self.demand("other names are not asked of this server", not self.asked_for("link"), self.asked_for("link"))


def run(program, directory, report):
    texts = blocks.recipes()
    address(SERVER, FIRST, SECOND)
    world = parents.World(directory / "parents", texts["delegation"])
    setting = Setting(world, directory, directory.parent)
    world.start()
    neighbours.unbound(setting, setting.of("recursive"), "", listen=parents.RECURSIVE)
    cluster = Cluster([FIRST])
    start_ours(program, setting.log, texts["delegated"])
    changed = Change()
    left_out = os.environ.get("RECIPES_WITHOUT") or "\n"
    wanted = [trial for trial in trials(texts) if left_out not in trial.name]
    threads = [threading.Thread(target=trial.run, args=(setting, changed)) for trial in wanted]
    for thread in threads:
        thread.start()
    for trial in wanted:
        trial.ready.wait()
    change(cluster, changed)
    for thread in threads:
        thread.join()
    for sentence, problem in [found for trial in wanted for found in trial.found]:
        report.check(sentence, problem)


def start_ours(program, log, text):
    """With the configuration of the recipe, as it stands there; it logs each query."""
    own = log.parent
    own.mkdir()
    (own / "config.toml").write_text(text)
    environment = {"RUNTIME_DIRECTORY": str(own)}
    spawn(own, log.name, program, "run", "--config", own / "config.toml", **environment)
    until(lambda: (reply := ask(ZONE, server=SERVER)) and reply.data("A") == [FIRST], "the server answers", PATIENCE)
    command = [program, "log", "queries", "--for", "10m"]
    until(lambda: subprocess.run(command, env=environment).returncode == 0, "the server logs queries", PATIENCE)


def change(cluster, changed):
    """The node refuses connections, and another one, which was listed and did not work, is there in its place."""
    cluster.add(SECOND, healthy=False)
    polls = cluster.polls
    until(lambda: cluster.polls > polls + 2, "the second node is known", PATIENCE)
    cluster.nodes[SECOND].healthy = True
    cluster.stop(FIRST)
    cluster.listed.remove(FIRST)
    changed.at = time.monotonic()
    changed.set()
