"""The zones: as files for the other servers, as clusters and configuration for ours."""

from dataclasses import dataclass

SERIAL = 2026112300
TTL = 5
NAME_SERVERS = {"ns1.c1.alt.test": "192.0.2.1", "ns2.elsewhere.test": None}
"""The first lies in a zone of ours, so that its address must be configured; the other does not."""


def addresses(network, count):
    return [f"10.{network}.0.{host}" for host in range(1, count + 1)]


@dataclass(frozen=True)
class Zone:
    name: str
    nodes: tuple
    keys: str = ""
    """More lines of its section in our configuration."""
    below: tuple = ()
    """Names of other zones below, which a file has to delegate."""
    negative: int = TTL
    """Seconds for which a denial is kept."""

    def file(self):
        """The zone for a server that reads files."""
        lines = [
            f"$ORIGIN {self.name}.",
            f"@ {self.negative} SOA ns1.c1.alt.test. hostmaster {SERIAL} 60 10 1209600 {self.negative}",
            *[f"@ 3600 NS {server}." for server in NAME_SERVERS],
        ]
        for owner in ["@", "*"] if "subdomains = true" in self.keys else ["@"]:
            lines += [f"{owner} {TTL} {'AAAA' if ':' in node else 'A'} {node}" for node in self.nodes]
        for server, address in NAME_SERVERS.items():
            if address and server.endswith("." + self.name):
                lines.append(f"{server}. 3600 A {address}")
        for name in self.below:
            lines += [f"{name}. 3600 NS {server}." for server in NAME_SERVERS]
        return "\n".join(lines) + "\n"

    def section(self):
        """The zone in our configuration."""
        seeds = ", ".join(f'"{node}"' for node in self.nodes[:2])
        return f'[zones."{self.name}"]\nseeds = [{seeds}]\n{self.keys}\n'


ALL = 'answers = "all"'
EIGHT = "answers = 8"
BRIEFLY = 'negative_ttl = "1s"'
UNPROBED = "health = false"
"""For clusters of a hundred nodes, so that the machine has time for the questions."""

ZONES = [
    Zone("c1.alt.test", tuple(addresses(0, 3)), ALL),
    Zone("big.alt.test", tuple(addresses(1, 100)), f"{EIGHT}\n{UNPROBED}"),
    Zone("all.alt.test", tuple(addresses(1, 100)), f"{ALL}\n{UNPROBED}"),
    Zone("v6.alt.test", (*addresses(2, 2), "fd00::1", "fd00::2"), ALL),
    Zone("nest.alt.test", tuple(addresses(3, 2)), ALL, below=("a.b.nest.alt.test",)),
    Zone("a.b.nest.alt.test", tuple(addresses(4, 2)), ALL),
    Zone("sub.alt.test", tuple(addresses(5, 2)), f"{ALL}\nsubdomains = true"),
    Zone("denied.alt.test", tuple(addresses(7, 2)), f"{ALL}\n{BRIEFLY}", negative=1),
]
"""The zones that the other servers have too: all should give the same replies."""

CHANGING = [
    Zone("moves.alt.test", tuple(addresses(10, 4)), ALL),
    Zone("faulty.alt.test", tuple(addresses(11, 2)), ALL),
    Zone("stale.alt.test", tuple(addresses(12, 2)), ALL),
    Zone("spent.alt.test", tuple(addresses(13, 2)), f'{ALL}\nmax_stale = "3s"'),
    Zone("new.alt.test", tuple(addresses(14, 2)), ALL),
    Zone("scoped.alt.test", tuple(addresses(15, 2)), f'{ALL}\nscope = [{{ datacenter = "east" }}]'),
]
"""Zones whose clusters change, fail or never start: only our server learns nodes."""

NEVER_THERE = {"new.alt.test", "scoped.alt.test"}
DELEGATED = Zone("alternator.alt.test", (), below=("one.east.alternator.alt.test",))
"""A name that is delegated to us and is no zone: the key `domains`. One zone lies below it."""
BELOW_DELEGATED = Zone("one.east.alternator.alt.test", tuple(addresses(6, 2)), ALL)

LOCAL_ROUTES = [["route", "add", "local", "10.0.0.0/8", "dev", "lo"]]
LOCAL_ADDRESSES = ["fd00::1", "fd00::2", "fd00::53"]
