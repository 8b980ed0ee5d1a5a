"""The network of the test: a router with the DNS servers, the nodes, and clients in several places."""

import random
import subprocess
from dataclasses import dataclass

DNS = "10.9.0.1"
"""Where this server listens."""
CLIENT_PORT = 9000
"""The port that clients connect to. Polls and probes have another one, so that they are not counted."""

NODE_HOSTS = (14, 37, 75, 98, 141, 169, 202, 239)
CLIENT_HOSTS = (23, 60, 117, 150, 186, 221)
"""Spread over a /24, as a cloud hands out addresses."""
RACKS = (4, 5, 6)


def interface_ids(count, seed):
    """The lower halves of IPv6 addresses, random as those of SLAAC and of clouds are."""
    chance = random.Random(seed)
    return [":".join(f"{chance.randrange(1, 65536):x}" for _ in range(4)) for _ in range(count)]


def across_racks(hosts):
    return [f"10.1.{RACKS[number % len(RACKS)]}.{host}" for number, host in enumerate(hosts)]


LAYOUTS = {
    "v4": [f"10.1.1.{host}" for host in NODE_HOSTS],
    "racks": across_racks(NODE_HOSTS),
    "v6": [f"2001:db8:1:0:{low}" for low in interface_ids(len(NODE_HOSTS), 1)],
}
"""Clusters of eight nodes."""


@dataclass(frozen=True)
class Place:
    """Where clients are."""

    name: str
    description: str
    layout: str
    host: str
    """The host, of `Network`."""
    addresses: tuple
    """Each is the client's address for a while, as if there were as many clients."""
    router: str
    length: int


PLACES = [
    Place("near4", "IPv4, in the nodes' /24", "v4", "near", tuple(f"10.1.1.{h}" for h in CLIENT_HOSTS), "10.1.1.1", 24),
    Place("far4", "IPv4, in another /24", "v4", "far", tuple(f"10.1.2.{h}" for h in CLIENT_HOSTS), "10.1.2.1", 24),
    Place("racks4", "IPv4, in the three /24 of the nodes", "racks", "racks", tuple(across_racks(CLIENT_HOSTS)), "", 24),
    Place(
        "near6",
        "IPv6, in the nodes' /64",
        "v6",
        "near",
        tuple(f"2001:db8:1:0:{low}" for low in interface_ids(len(CLIENT_HOSTS), 2)),
        "2001:db8:1::1",
        64,
    ),
    Place(
        "far6",
        "IPv6, in another /64",
        "v6",
        "far",
        tuple(f"2001:db8:2:0:{low}" for low in interface_ids(len(CLIENT_HOSTS), 3)),
        "2001:db8:2::1",
        64,
    ),
]


class Host:
    """A network namespace. It ends with the process that holds it."""

    def __init__(self):
        command = ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"]
        self.holder = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.holder.stdout.readline()
        self.enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        self.ip("link set lo up")

    def run(self, *command, text=None):
        subprocess.run([*self.enter, *command], input=text, text=True, check=True)

    def ip(self, words):
        self.run("ip", *words.split())


def ip(words):
    subprocess.run(["ip", *words.split()], check=True)


class Network:
    """This host is the router."""

    def __init__(self, resolvers):
        for key in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            subprocess.run(["sysctl", "-qw", f"net.{key}=1"], check=True)
        for address in (DNS, *resolvers):
            ip(f"address add {address}/32 dev lo")
        ip("link add bridge type bridge")
        ip("link set bridge up")
        ip("address add 10.1.1.1/24 dev bridge")
        ip("address add 2001:db8:1::1/64 dev bridge nodad")
        self.nodes = self.attach("nodes", bridged=True)
        self.hosts = {name: self.attach(name, bridged=name == "near") for name in ("near", "far", "racks")}
        ip("address add 10.1.2.1/24 dev far")
        ip("address add 2001:db8:2::1/64 dev far nodad")
        self.place_nodes()
        self.place_racks()

    @staticmethod
    def attach(name, bridged=False):
        host = Host()
        ip(f"link add {name} type veth peer name eth0 netns {host.holder.pid}")
        if bridged:
            ip(f"link set {name} master bridge")
        ip(f"link set {name} up")
        host.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=0")
        host.ip("link set eth0 up")
        return host

    def place_nodes(self):
        for address in LAYOUTS["v4"]:
            self.nodes.ip(f"address add {address}/24 dev eth0")
        for address in LAYOUTS["v6"]:
            self.nodes.ip(f"address add {address}/64 dev eth0 nodad")
        self.nodes.ip("route add default via 10.1.1.1")
        self.nodes.ip("route add default via 2001:db8:1::1")

    def place_racks(self):
        """The router answers ARP for the nodes of the three subnets: clients believe to have them on their link."""
        for rack in RACKS:
            ip(f"address add 10.1.{rack}.1/24 dev racks")
        keys = ["net.ipv4.conf.racks.proxy_arp=1", "net.ipv4.neigh.racks.proxy_delay=0"]
        subprocess.run(["sysctl", "-qw", *keys], check=True)
        for address in LAYOUTS["racks"]:
            self.nodes.ip(f"address add {address}/32 dev lo")
            ip(f"route add {address}/32 via {LAYOUTS['v4'][0]}")

    def move(self, place, address):
        """Gives the clients of a place this address, and no other."""
        host = self.hosts[place.host]
        # The link-local IPv6 address stays, as on any host where IPv6 is not switched off: without one, glibc does not
        # sort IPv4 addresses.
        host.ip("address flush dev eth0 scope global")
        if ":" in address:
            # Name servers have IPv4 addresses.
            subnet = "10.1.1" if place.host == "near" else "10.1.2"
            host.ip(f"address add {subnet}.5/24 dev eth0")
            host.ip(f"route replace default via {subnet}.1")
            host.ip(f"address add {address}/64 dev eth0 nodad")
        else:
            host.ip(f"address add {address}/24 dev eth0")
        host.ip(f"route replace default via {place.router or address.rsplit('.', 1)[0] + '.1'}")

    def kill(self, address, silent):
        """The node answers no packet any more, or refuses each connection as a host without its process does."""
        verdict = "drop" if silent else "reject with tcp reset"
        family = "ip6" if ":" in address else "ip"
        self.nodes.run("nft", "-f", "-", text=f"""\
table inet death {{
    chain input {{
        type filter hook input priority 0;
        {family} daddr {address} meta l4proto tcp {verdict}
    }}
}}
""")

    def revive(self):
        self.nodes.run("nft", "delete", "table", "inet", "death")
