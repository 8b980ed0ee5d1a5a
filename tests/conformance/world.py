"""The stage: the network, the clusters, and every server, all with the same zones."""

import subprocess
from dataclasses import replace

import fixture
import servers
from cluster import Cluster
from queries import Server
from servers import OURS, Resolver, until


class World:
    def __init__(self, program, directory, report):
        self.program, self.directory, self.report = program, directory, report
        for route in fixture.LOCAL_ROUTES:
            subprocess.run(["ip", *route], check=True)
        for address in fixture.LOCAL_ADDRESSES:
            subprocess.run(["ip", "-6", "address", "add", f"{address}/128", "dev", "lo", "nodad"], check=True)
        self.zones = list(fixture.ZONES)
        self.clusters = {}
        self.servers = [Server(name, address) for name, address in servers.ADDRESSES.items()]

    def start(self):
        self.start_ours()
        for name, start in servers.PEERS.items():
            start(self.directory / name, [*fixture.ZONES, fixture.DELEGATED, fixture.BELOW_DELEGATED])
        for server in self.servers:
            took = until(lambda: servers.answers(server), f"{server.name} answers")
            print(f"{server.name} answers after {took:.2f} s")
        self.start_fenced()
        for zone in self.zones:
            until(lambda: learnt(self.ours, zone), f"all nodes of {zone.name} are known")

    def start_ours(self):
        self.ours = Resolver(self.program, self.directory / "ours", servers.ADDRESSES[OURS])
        secret = self.ours.directory / "cookie-secrets"
        secret.write_text(servers.SECRET + "\n")
        secret.chmod(0o600)
        wished = {
            "nsid": f'nsid = "{servers.IDENTITY}"',
            "version": f'version = "{servers.VERSION}"',
            "cookie_secret_file": f'cookie_secret_file = "{secret}"',
            "domains": f'domains = ["{fixture.DELEGATED.name}"]',
        }
        self.zones += [*fixture.CHANGING, fixture.BELOW_DELEGATED]
        self.lines = list(self.understood(self.ours, wished).values())
        brief = next(zone for zone in self.zones if fixture.BRIEFLY in zone.keys)
        if not self.report.check("a zone takes negative_ttl", None if self.takes(brief) else "its line is left out"):
            self.zones[self.zones.index(brief)] = replace(brief, keys=brief.keys.replace(fixture.BRIEFLY, ""))
        for zone in self.zones:
            self.start_cluster(zone)
        self.state = self.ours.directory / "state"
        self.state.mkdir()
        self.lines.append(f'state_dir = "{self.state}"')
        self.ours.write(self.text())
        self.ours.start()

    def start_fenced(self):
        """A second server of ours, with tight limits for its clients."""
        self.fenced = Resolver(self.program, self.directory / "fenced", servers.FENCED)
        secret = self.fenced.directory / "cookie-secrets"
        secret.write_text(f"{servers.SECRET}\n{servers.FORMER_SECRET}\n")
        secret.chmod(0o600)
        wished = {
            "tcp": 'tcp = { max_connections = 8, max_per_client = 4, idle = "1s", message = "1s" }',
            "clients": 'clients = ["127.0.0.0/16", "fd00::/64"]',
            "rate_limit": "rate_limit = { per_second = 5, slip = 2, v4_prefix = 24, v6_prefix = 56 }",
        }
        lines = list(self.understood(self.fenced, wished).values())
        if any(line.startswith("cookie_secret_file") for line in self.lines):
            lines.append(f'cookie_secret_file = "{secret}"')
        zones = [zone for zone in fixture.ZONES if zone.name in ("c1.alt.test", "all.alt.test")]
        guarded = next(zone for zone in fixture.ZONES if zone.name == "v6.alt.test")
        keys = f'{guarded.keys}\nclients = ["127.0.5.0/24"]'
        if self.fenced.check(servers.with_zones(servers.head(servers.FENCED), [replace(guarded, keys=keys)])):
            guarded = replace(guarded, keys=keys)
        everywhere = [f"0.0.0.0:{servers.WILDCARD_PORT}", f"[::]:{servers.WILDCARD_PORT}"]
        self.fenced.write(servers.with_zones(servers.head(servers.FENCED, lines, everywhere), [*zones, guarded]))
        self.fenced.start()
        until(lambda: learnt(self.fenced, zones[0]), "the fenced server knows all nodes")

    def takes(self, zone):
        return self.ours.check(servers.with_zones(servers.head(self.ours.address), [zone]))

    def understood(self, resolver, wished):
        """The lines that this version accepts, of those that a test wants; the others are left out and reported."""
        taken = servers.understood(resolver, wished)
        for key in wished:
            self.report.check(f"[server] takes {key}", None if key in taken else "its line is left out in what follows")
        return taken

    def text(self, zones=None):
        head = servers.head(self.ours.address, self.lines, [f"[{servers.OURS_IPV6}]:53"])
        return servers.with_zones(head, self.zones if zones is None else zones)

    def start_cluster(self, zone):
        """Two zones may have one cluster."""
        known = next((cluster for cluster in self.clusters.values() if zone.nodes[0] in cluster.nodes), None)
        if zone.name not in fixture.NEVER_THERE:
            self.clusters[zone.name] = known or Cluster(zone.nodes)


def learnt(resolver, zone):
    entry = resolver.zone(zone.name)
    return zone.name in fixture.NEVER_THERE or (
        len(entry["nodes"]) == len(zone.nodes)
        and all(node["state"] == "up" or fixture.UNPROBED in zone.keys for node in entry["nodes"])
    )
