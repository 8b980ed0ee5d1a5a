"""The servers, each with the same names and the same nodes.

Every zone has nine nodes. Of what a server can do that comes nearest to one random node an answer, it does that: ours
does it, gdnsd has a plugin, and the others answer a record that never changes, which is less work.
"""

import ipaddress
import json
import urllib.request
from dataclasses import dataclass

import peers
from host import LOAD_CORE, SERVER_CORE
from processes import Process
from queries import ask, outcome, question

OURS, GDNSD, NSD, KNOT, ECHO, ECHO_AGAIN = "alternator-dns", "gdnsd", "NSD", "Knot", "echo", "echo again"
PORTS = {OURS: 5301, GDNSD: 5302, NSD: 5303, KNOT: 5304, ECHO: 5305, ECHO_AGAIN: 5306}
ADMIN = "127.0.0.1:9153"
NODES_PORT = 8000
FIRST_NODE = int(ipaddress.IPv4Address("127.16.0.0"))
NODES_V6 = int(ipaddress.IPv6Address("fd00:7f::"))
NODES = 9
STILL = 'refresh = "1h"\nhealth = false\n'
"""Zones that are learnt once, so that what is measured are the answers."""
SOA = "ns.example.net. hostmaster.example.net. 1 60 10 1209600 4"


@dataclass(frozen=True)
class Setting:
    """What servers serve."""

    zones: int = 1
    answers: int = 1
    wildcard: bool = False
    has_v6: bool = True
    pace: str = STILL

    def host(self):
        return "0.0.0.0" if self.wildcard else "127.0.0.1"


def zone_name(number):
    return f"z{number}.alternator.example.com"


def node(zone, host, nodes=NODES):
    """The address of a node, as nodes.rs has them."""
    return ipaddress.IPv4Address(FIRST_NODE + zone * (1 << nodes.bit_length()) + host)


def node_v6(zone, host):
    return ipaddress.IPv6Address(NODES_V6 + int(node(zone, host)))


def start_nodes(programs, directory, size=f"{NODES}+6"):
    """The nodes of all zones."""
    return Process(LOAD_CORE, directory / "nodes.log", [programs.nodes, NODES_PORT, size])


# --- Ours ----------------------------------------------------------------------------------------------------------


def configuration(listen, zones, pace, more="", nodes=NODES):
    sections = (
        f'[zones."{zone_name(number)}"]\nseeds = ["{node(number, 1, nodes)}", "{node(number, 2, nodes)}"]\n'
        for number in zones
    )
    return (
        f'[server]\nlisten = ["{listen}"]\nadmin = "{ADMIN}"\n{more}'
        f"[defaults]\nport = {NODES_PORT}\n{pace}" + "".join(sections)
    )


def write_ours(directory, setting, zones=None):
    """Puts the file in place whole, as editors do."""
    text = configuration(
        f"{setting.host()}:{PORTS[OURS]}",
        range(setting.zones) if zones is None else zones,
        setting.pace + f"answers = {setting.answers}\n" + ("" if setting.has_v6 else 'exclude = ["::/0"]\n'),
    )
    new = directory / "config.toml.new"
    new.write_text(text)
    new.rename(directory / "config.toml")


def run_ours(programs, directory, wrapper=()):
    return Process(
        SERVER_CORE,
        directory / "alternator-dns.log",
        [*wrapper, programs.ours, "run", "--config", directory / "config.toml"],
        RUNTIME_DIRECTORY=str(directory),
    )


def start_ours(programs, directory, setting, wrapper=()):
    write_ours(directory, setting)
    server = run_ours(programs, directory, wrapper)
    server.until(lambda: learnt() >= setting.zones, "every zone is learnt", pause=min(2.0, 0.02 + setting.zones / 5e3))
    return server


def admin(path):
    try:
        with urllib.request.urlopen(f"http://{ADMIN}{path}", timeout=20) as reply:
            return reply.read()
    except OSError:
        return b""


def fast_lane():
    """Questions that took the fast lane so far."""
    name = "alternator_dns_fast_lane_total "
    lines = admin("/metrics").decode().splitlines()
    return next((float(line.removeprefix(name)) for line in lines if line.startswith(name)), 0)


def learnt():
    """How many zones have been."""
    status = json.loads(admin("/api/zones") or '{"zones": []}')
    return sum(zone["state"] not in ("waiting", "stale", "unanswered") for zone in status["zones"])


# --- The others ----------------------------------------------------------------------------------------------------


def start_gdnsd(programs, directory, setting, wrapper=()):
    # Without a monitor, because nothing of what it says is measured: its nodes are always up.
    pool = ("weighted", "[ {}, 1 ]") if setting.answers == 1 else ("multifo", "{}")
    count = NODES if setting.answers == 1 else setting.answers

    def family(name, address):
        entries = "".join(f"n{host} => {pool[1].format(address(0, host))}, " for host in range(1, count + 1))
        return f"{name} => {{ {entries} }},"

    families = family("addrs_v4", node) + (family("addrs_v6", node_v6) if setting.has_v6 else "")
    plugins = f"plugins => {{ {pool[0]} => {{ service_types => up, pool => {{\n  {families}\n}} }} }}\n"
    text = f"@ 60 SOA {SOA}\n@ 3600 NS ns.example.net.\n@ 4 DYNA {pool[0]}!pool\n"
    zones = {zone_name(number): text for number in range(setting.zones)}
    command = peers.gdnsd(directory, f"{setting.host()}:{PORTS[GDNSD]}", zones, plugins=plugins)
    return Process(SERVER_CORE, directory / "gdnsd.log", [*wrapper, *command])


def zone_file(setting):
    """What NSD and Knot serve for every zone: names are relative to it."""
    hosts = range(1, setting.answers + 1)
    records = "".join(f"@ 4 A {node(0, host)}\n" for host in hosts)
    if setting.has_v6:
        records += "".join(f"@ 4 AAAA {node_v6(0, host)}\n" for host in hosts)
    return f"@ 60 SOA {SOA}\n@ 3600 NS ns.example.net.\n{records}"


def start_nsd(programs, directory, setting, wrapper=()):
    (directory / "zone").write_text(zone_file(setting))
    zones = {zone_name(number): "zone" for number in range(setting.zones)}
    command = peers.nsd(directory, f"{setting.host()}@{PORTS[NSD]}", zones)
    return Process(SERVER_CORE, directory / "nsd.log", [*wrapper, *command])


def start_knot(programs, directory, setting, wrapper=()):
    (directory / "zone").write_text(zone_file(setting))
    command = peers.knot(
        directory,
        f"{setting.host()}@{PORTS[KNOT]}",
        [zone_name(number) for number in range(setting.zones)],
        "zone",
        server="    answer-rotation: on\n",
        template="    zonefile-sync: -1\n    journal-content: none\n    global-module: mod-cookies/own\n",
        more="mod-cookies:\n  - id: own\n",
        log="warning",
    )
    return Process(SERVER_CORE, directory / "knot.log", [*wrapper, *command])


def starter_of_echo(name):
    def start(programs, directory, setting, wrapper=()):
        return Process(
            SERVER_CORE, directory / "echo.log", [*wrapper, programs.echo, f"{setting.host()}:{PORTS[name]}"]
        )

    return start


STARTERS = {
    OURS: start_ours,
    GDNSD: start_gdnsd,
    NSD: start_nsd,
    KNOT: start_knot,
    ECHO: starter_of_echo(ECHO),
    ECHO_AGAIN: starter_of_echo(ECHO_AGAIN),
}


def start(name, programs, directory, setting, wrapper=()):
    """Starts a server in a directory of its own and waits until it answers for its last zone."""
    home = directory / name.replace(" ", "-")
    home.mkdir(parents=True)
    server = STARTERS[name](programs, home, setting, wrapper)
    message = question(zone_name(setting.zones - 1))
    wanted = None if name in (ECHO, ECHO_AGAIN) else (0, setting.answers)
    try:
        server.until(
            lambda: (seen := outcome(ask(PORTS[name], message))) is not None and wanted in (None, seen),
            f"{name} answers with {setting.answers} records",
        )
    except BaseException:
        server.stop()
        raise
    return server
