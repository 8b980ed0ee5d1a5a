"""Hosts with one link each to a common network: network namespaces. A thread that enters one makes its sockets there, and
so do the programs that it starts."""

import ctypes
import os
import socket
import subprocess
import threading
from pathlib import Path

from servers import CHILDREN, until
from wire import RD, Malformed, query, read

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def ip(*words):
    subprocess.run(["ip", *map(str, words)], check=True)


def address(*words):
    """An address of the common network, in which the programs of this process and the simulated nodes run."""
    for word in words:
        ip("address", "add", f"{word}/32", "dev", "lo")


class Host:
    """A host: its interface is `eth0`, its address 10.9.NUMBER.2, and everything else is behind 10.9.NUMBER.1."""

    numbers = iter(range(1, 255))
    lock = threading.Lock()

    def __init__(self, *addresses):
        """`addresses` are further ones of the host, to which the common network has routes."""
        with Host.lock:
            self.number = next(Host.numbers)
        self.links = 0
        self.address = f"10.9.{self.number}.2"
        self.hold()
        self.link("eth0", f"10.9.{self.number}")
        self.run("ip", "route", "add", "default", "via", f"10.9.{self.number}.1")
        for own in addresses:
            self.run("ip", "address", "add", f"{own}/32", "dev", "lo")
            ip("route", "replace", f"{own}/32", "via", self.address)

    def link(self, name, network):
        """A further link, from .2 of a network to .1, which the common network has."""
        here = f"h{self.number}-{self.links}"
        self.links += 1
        ip("link", "add", here, "type", "veth", "peer", "name", name, "netns", self.pid)
        ip("address", "add", f"{network}.1/24", "dev", here)
        ip("link", "set", here, "up")
        self.run("ip", "address", "add", f"{network}.2/24", "dev", name)
        self.run("ip", "link", "set", name, "up")

    @classmethod
    def bridged(cls, name, address):
        """A host whose only link, `eth0`, is to the bridge `lan`, behind which 10.0.0.1 is the router."""
        host = cls.__new__(cls)
        host.address, host.port = address, name
        host.hold()
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", host.pid)
        ip("link", "set", name, "master", "lan", "up")
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        host.run("ip", "route", "add", "default", "via", "10.0.0.1")
        return host

    def hold(self):
        """Makes the namespace, which lasts as long as this process."""
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        CHILDREN.append(holder)
        self.pid = holder.pid
        self.namespace = Path(f"/proc/{holder.pid}/ns/net")
        ours = os.readlink("/proc/self/ns/net")
        until(lambda: os.readlink(self.namespace) != ours, "a namespace is there")
        self.run("ip", "link", "set", "lo", "up")

    def disconnect(self):
        ip("link", "set", self.port, "nomaster")

    def connect(self):
        ip("link", "set", self.port, "master", "lan")

    def end(self):
        """Takes its link away."""
        ip("link", "del", self.port)

    def run(self, *words):
        subprocess.run(["nsenter", f"--net={self.namespace}", *map(str, words)], check=True)

    def enter(self):
        """Moves the calling thread to this host."""
        with self.namespace.open() as namespace:
            if LIBC.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")


NUMBER = iter(range(1, 1 << 30))


def ask(qname, qtype="A", server="127.0.0.1", *, client=None, edns=None, seconds=2.0):
    """The reply, or None if there is none."""
    number = (next(NUMBER) % 0xFFFF).to_bytes(2, "big")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(seconds)
        if client:
            asker.bind((client, 0))
        try:
            asker.connect((server, 53))
            asker.send(number + query(qname, qtype, flags=RD, edns=edns)[2:])
            while True:
                octets = asker.recv(65535)
                if octets[:2] == number:
                    return read(octets)
        except (OSError, Malformed):
            return None
