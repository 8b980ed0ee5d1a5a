"""The world above the zone: a signed root, and a signed `example.com` in which the name is delegated, or is not there."""

import re
import subprocess

import peers
from network import address
from servers import spawn

UNAWARE, NSD, KNOT = "198.51.100.1", "198.51.100.2", "198.51.100.3"
"""Each serves a root and an `example.com` of its own, with the same keys. The first does not know the name; the other two
delegate it, as the recipe says."""
RECURSIVE = "198.51.100.53"
"""A validating resolver in the world of the first one, which does not know the name either."""
OTHER_NAME, OTHER_ADDRESS = "www.example.com", "93.184.215.14"
"""Only data: an address of no network that resolvers take for private. No program sends anything to it."""
SOA = "SOA ns0.example.com. hostmaster.example.com. 1 3600 600 86400 5"


class World:
    def __init__(self, directory, delegation):
        directory.mkdir()
        self.directory = directory
        address(UNAWARE, NSD, KNOT, RECURSIVE)
        for zone in (".", "example.com."):
            options = ["-q", "-a", "ECDSAP256SHA256", "-f", "KSK", "-n", "ZONE", "-K", directory, zone]
            subprocess.run(["dnssec-keygen", *options], check=True, stdout=subprocess.DEVNULL)
        for server, lines in ((UNAWARE, ""), (NSD, delegation), (KNOT, delegation)):
            self.sign(server, lines)
        self.anchor_words = self.anchor()

    def sign(self, server, lines):
        """Zone files as `root` and `example.com`, in a directory of the server's."""
        own = self.directory / server
        own.mkdir()
        parent = f"""\
example.com. 60 {SOA}
example.com. 60 NS ns0.example.com.
ns0.example.com. 60 A {server}
{OTHER_NAME}. 60 A {OTHER_ADDRESS}
{lines}"""
        self.sign_zone(own, "example.com", parent)
        root = f"""\
. 60 {SOA}
. 60 NS ns0.example.com.
example.com. 60 NS ns0.example.com.
ns0.example.com. 60 A {server}
"""
        self.sign_zone(own, ".", root + (own / "dsset-example.com.").read_text())

    def sign_zone(self, own, zone, text):
        name = "root" if zone == "." else zone
        (own / f"{name}.unsigned").write_text(text)
        keys = ["-S", "-z", "-K", self.directory, "-d", own]
        files = ["-o", zone, "-f", own / name, own / f"{name}.unsigned"]
        subprocess.run(["dnssec-signzone", "-q", *keys, *files], check=True, stdout=subprocess.DEVNULL)

    def anchor(self):
        """Key tag, algorithm, digest type and digest of the root's key."""
        text = (self.directory / UNAWARE / "dsset-.").read_text()
        tag, algorithm, kind, digest = re.search(r"DS\s+(\d+) (\d+) (\d+) ([0-9A-F ]+)", text).groups()
        return tag, algorithm, kind, digest.replace(" ", "")

    def start(self):
        for server in (UNAWARE, NSD):
            zones = {".": "root", "example.com": "example.com"}
            spawn(self.directory / server, "nsd.log", *peers.nsd(self.directory / server, server, zones))
        own = self.directory / KNOT
        # Knot makes a file name of the root that is empty.
        (own / "root").rename(own / ".zone")
        (own / "example.com").rename(own / "example.com.zone")
        spawn(own, "knot.log", *peers.knot(own, f"{KNOT}@53", [".", "example.com"], "%s.zone"))
