"""Real clients in front of us: unbound, and what the C libraries make of our replies."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import fixture
import servers
from checks import data, first, problem_with, rcode
from queries import Server
from report import table
from servers import FORWARDING, OURS, UPSTREAM, Resolver, spawn, until
from wire import RA, RD, query, words

HERE = Path(__file__).resolve().parent
NODES = {zone.name: zone.nodes for zone in [*fixture.ZONES, fixture.BELOW_DELEGATED]}


def run(world, report):
    resolvers(world, report)
    libraries(world, report)


# --- unbound ------------------------------------------------------------------------------------------------------

UNBOUNDS = {"forward-zone": "127.0.0.31", "stub-zone, 0x20, strict minimisation": "127.0.0.32"}
PASSED_ON = ["c1.alt.test", "v6.alt.test", "all.alt.test", "nest.alt.test", "sub.alt.test", fixture.DELEGATED.name]
"""The zones that unbound is configured to ask us for. Those below have no entry of their own: it must find them."""


def start_unbound(directory, address, stub):
    directory.mkdir(parents=True)
    kind = "stub" if stub else "forward"
    # "test." is among the zones that unbound keeps to itself by default.
    (directory / "unbound.conf").write_text(
        f"""\
server:
    interface: {address}
    access-control: 127.0.0.0/8 allow
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: "{directory}/unbound.pid"
    use-syslog: no
    do-daemonize: no
    num-threads: 1
    module-config: "iterator"
    do-not-query-localhost: no
    local-zone: "test." nodefault
    qname-minimisation: {"yes" if stub else "no"}
    qname-minimisation-strict: {"yes" if stub else "no"}
    use-caps-for-id: {"yes" if stub else "no"}
remote-control:
    control-enable: no
"""
        + "".join(
            f'{kind}-zone:\n    name: "{name}"\n    {kind}-addr: {servers.ADDRESSES[OURS]}\n' for name in PASSED_ON
        )
    )
    spawn(directory, "unbound.log", "/usr/sbin/unbound", "-d", "-c", directory / "unbound.conf")


def nodes(name, rtype="A"):
    wanted = {node for node in NODES[name] if (":" in node) == (rtype == "AAAA")}
    return (rcode("NOERROR"), data(wanted), ttl_at_most(fixture.TTL))


def ttl_at_most(seconds):
    return lambda reply: first(f"a TTL is {record.ttl}" for record in reply.answer if record.ttl > seconds)


def denied(code):
    """No record, and an SOA with which resolvers cache that for at most five seconds."""

    def check(reply):
        if (reply.rcode, reply.answer) != (code, []):
            return f"{reply.rcode}, answer {reply.answer}"
        if [record.type for record in reply.authority] != ["SOA"] or reply.authority[0].ttl > fixture.TTL:
            return f"the authority section is {reply.authority}"
        return None

    return (check,)


HUB = fixture.DELEGATED.name
RESOLVED = [
    ("c1.alt.test", "A", "3 A", nodes("c1.alt.test")),
    ("C1.Alt.tEst", "AAAA", "NODATA", denied("NOERROR")),
    ("c1.alt.test", "HTTPS", "NODATA", denied("NOERROR")),
    ("x.c1.alt.test", "A", "NXDOMAIN", denied("NXDOMAIN")),
    ("y.x.c1.alt.test", "AAAA", "NXDOMAIN", denied("NXDOMAIN")),
    ("v6.alt.test", "A", "2 A", nodes("v6.alt.test")),
    ("v6.alt.test", "AAAA", "2 AAAA", nodes("v6.alt.test", "AAAA")),
    ("all.alt.test", "A", "100 A, which takes TCP", nodes("all.alt.test")),
    ("x.y.sub.alt.test", "A", "2 A", nodes("sub.alt.test")),
    ("a.b.nest.alt.test", "A", "2 A, through an empty non-terminal", nodes("a.b.nest.alt.test")),
    ("b.nest.alt.test", "A", "NODATA", denied("NOERROR")),
    ("a.b.nest.alt.test", "DS", "NODATA, as the zone above says", denied("NOERROR")),
    (f"one.east.{HUB}", "A", "2 A, below a delegated name", nodes(f"one.east.{HUB}")),
    (f"east.{HUB}", "AAAA", "NODATA", denied("NOERROR")),
    (HUB, "A", "NODATA", denied("NOERROR")),
    (f"x.y.{HUB}", "A", "NXDOMAIN", denied("NXDOMAIN")),
]


def resolvers(world, report):
    unbounds = []
    for number, (kind, address) in enumerate(UNBOUNDS.items()):
        start_unbound(world.directory / f"unbound-{number}", address, kind.startswith("stub"))
        unbounds.append((kind, Server(kind, address)))
    for _, unbound in unbounds:
        until(lambda: servers.answers(unbound), "unbound answers")
    rows = []
    for qname, rtype, demand, checks in RESOLVED:
        cells = []
        for kind, unbound in unbounds:
            # Over TCP, because a client's UDP would not take a hundred addresses.
            reply = unbound.tcp(query(qname, rtype, flags=RD))[0]
            problem = problem_with(reply, checks)
            shown = words(reply)
            report.check(f"unbound, {kind}: {rtype} {qname}: {shown}", problem and f"{problem}; demanded: {demand}")
            cells.append(f"**not ok:** {shown}" if problem else shown)
        rows.append([f"{rtype} {qname}", demand, *cells])
    report.section(
        "Behind unbound", "`cd` and `ra` are unbound's own bits.", table(["question", "demanded", *UNBOUNDS], rows)
    )


# --- The C libraries ----------------------------------------------------------------------------------------------

NO_SUCH_NAME, TRY_AGAIN, NO_ADDRESS = -2, -3, -5
"""What getaddrinfo returns (EAI_NONAME, EAI_AGAIN, EAI_NODATA)."""
ERRORS = {0: "", NO_SUCH_NAME: "no such name", TRY_AGAIN: "try again", NO_ADDRESS: "no address"}
QUICK = 500.0
"""Milliseconds: less than any client waits before it asks again."""
UPSTREAM_NAME, UPSTREAM_ADDRESS = "www.world.test", "192.0.2.80"
SEARCH = "svc.cluster.test cluster.test"
"""A search list of names that are not ours."""


@dataclass(frozen=True)
class Lookup:
    name: str
    family: int
    search: str
    options: str
    wanted: tuple
    """The addresses; without any, one of the errors in their place."""
    without_forward: bool = True
    """Whether it has to succeed when other names are refused."""

    def __str__(self):
        kind = {0: "", 4: "IPv4 ", 6: "IPv6 "}[self.family]
        return f"{kind}{self.name}, search {self.search}" + (f", {self.options}" if self.options else "")


C1, V6 = NODES["c1.alt.test"], NODES["v6.alt.test"]
LOOKUPS = [
    Lookup("c1.alt.test", 0, SEARCH, "", C1),
    Lookup("c1.alt.test.", 0, SEARCH, "", C1),
    Lookup("c1", 0, "alt.test", "", C1),
    Lookup("v6.alt.test", 0, SEARCH, "", V6),
    Lookup("v6.alt.test", 6, SEARCH, "", V6[2:]),
    Lookup("c1.alt.test", 6, "alt.test", "", (NO_ADDRESS, NO_SUCH_NAME), without_forward=False),
    Lookup("x.c1.alt.test.", 0, SEARCH, "", (NO_SUCH_NAME,)),
    # musl gives up when a name of the list is refused, and waits before it does; glibc goes on.
    Lookup("c1.alt.test", 0, SEARCH, "ndots:5", C1, without_forward=False),
    Lookup("nowhere", 0, SEARCH, "", (NO_SUCH_NAME,), without_forward=False),
    Lookup(UPSTREAM_NAME, 0, SEARCH, "", (UPSTREAM_ADDRESS,), without_forward=False),
    Lookup("www", 0, "world.test", "", (UPSTREAM_ADDRESS,), without_forward=False),
]


def libraries(world, report):
    programs = {"glibc": compiled(world, "gcc"), "musl": compiled(world, "musl-gcc", "-static")}
    modes = {"others refused": servers.ADDRESSES[OURS]}
    if start_forwarding(world, report):
        modes["others forwarded"] = FORWARDING
        forwarding(world, report)
    rows = []
    for lookup in LOOKUPS:
        cells = [
            look_up(report, lookup, mode, address, library, program)
            for mode, address in modes.items()
            for library, program in programs.items()
        ]
        rows.append([str(lookup), *cells])
    heads = [f"{library}, {mode}" for mode in modes for library in programs]
    report.section(
        "Asked by C libraries",
        "`getaddrinfo` with us as the only name server; timeout 1 s, 2 attempts.",
        table(["looked up", *heads], rows),
    )


def compiled(world, compiler, *options):
    program = world.directory / f"names-{compiler}"
    subprocess.run([compiler, "-O1", *options, "-o", program, HERE / "names.c"], check=True)
    return program


def look_up(report, lookup, mode, address, library, program):
    """Asks as a program would, and gives a cell of the table."""
    Path("/etc/resolv.conf").write_text(
        f"nameserver {address}\nsearch {lookup.search}\noptions timeout:1 attempts:2 {lookup.options}\n"
    )
    done = subprocess.run(
        [program, lookup.name, str(lookup.family)], capture_output=True, text=True, timeout=30, check=True
    )
    error, milliseconds, *found = done.stdout.split()
    error, milliseconds = int(error), float(milliseconds)
    shown = f"{ERRORS.get(error, error) or f'{len(found)} addresses'}, {milliseconds:.1f} ms"
    if mode == "others refused" and not lookup.without_forward:
        return shown
    if isinstance(lookup.wanted[0], int):
        wrong = None if error in lookup.wanted else f"the error is {error}, the addresses {found}"
    else:
        wrong = None if set(found) == set(lookup.wanted) else f"the error is {error}, the addresses {found}"
    slow = f"it took {milliseconds} ms" if milliseconds > QUICK else None
    passed = report.check(f"{library}, {mode}: {lookup}: {shown}", first([wrong, slow]))
    return shown if passed else f"**not ok:** {shown}"


# --- Forwarding ---------------------------------------------------------------------------------------------------


def is_whole(zone):
    return zone["state"] == "live" and all(node["state"] == "up" for node in zone["nodes"])


def start_forwarding(world, report):
    """A third server of ours, which passes other names on to a Knot; false if this version cannot."""
    resolver = Resolver(world.program, world.directory / "forwarding", FORWARDING)
    text = servers.with_zones(servers.head(FORWARDING), fixture.ZONES)
    text += f'[forward]\nupstreams = ["{UPSTREAM}:53"]\nclients = ["127.0.0.0/16"]\n'
    if not resolver.check(text):
        report.skip("forwarding: this version does not know [forward]")
        return False
    servers.start_upstream(world.directory / "upstream", f"{UPSTREAM_NAME}. 60 A {UPSTREAM_ADDRESS}\n")
    resolver.write(text)
    resolver.start()
    until(lambda: servers.answers(resolver.server), "the forwarding server answers")
    until(lambda: servers.answers(Server("upstream", UPSTREAM), UPSTREAM_NAME), "the upstream answers")
    for zone in ("c1.alt.test", "v6.alt.test"):
        until(lambda zone=zone: is_whole(resolver.zone(zone)), f"{zone} is known")
    return True


def forwarding(world, report):
    server = Server(OURS, FORWARDING)
    for case, reply, checks in (
        (
            "a name of another server",
            server.udp(query(UPSTREAM_NAME, flags=RD)),
            (rcode("NOERROR"), data([UPSTREAM_ADDRESS]), lambda reply: None if reply.has(RA) else "RA is clear"),
        ),
        ("a name that does not exist", server.udp(query("nowhere.test", flags=RD)), (rcode("NXDOMAIN"),)),
        (
            "a name of another server, from outside of `clients`",
            server.udp(query(UPSTREAM_NAME, flags=RD), client="127.9.0.1"),
            (rcode("REFUSED"),),
        ),
        (
            "a zone of ours, from outside of `clients`",
            server.udp(query("c1.alt.test"), client="127.9.0.1"),
            (rcode("NOERROR"), data(C1)),
        ),
    ):
        report.check(f"forwarding: {case}: {words(reply)}", problem_with(reply, checks))
