"""Questions: one to see whether a server answers, and as many as it takes."""

import re
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import wire
from host import LOAD_CORE
from processes import Failure

COOKIE = bytes.fromhex("0123456789abcdef")
OUTSTANDING = 100
"""Questions that dnsperf has under way: its default."""
OUTSTANDING_AT_A_RATE = 1_000
"""So many that a slow answer does not hold the next question back. With more, dnsperf floods whom it asks when it has
been held up itself, to make good for what it has not asked."""
BUFFER_KILOBYTES = 4096
"""Of dnsperf's own socket, so that nothing is lost there."""


def question(name, record_type="A", edns=False, cookie=False):
    options = [wire.option(wire.COOKIE, COOKIE)] if cookie else []
    return wire.query(name, record_type, flags=wire.RD, edns=wire.opt(*options) if edns else None)


def ask(port, message, seconds=0.2):
    """The reply of the server at this port, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(seconds)
        asker.connect(("127.0.0.1", port))
        try:
            asker.send(message)
            return asker.recv(4096)
        except OSError:
            return None


def outcome(reply):
    """The rcode of a reply and its number of answers."""
    return reply and (reply[3] & 15, struct.unpack(">H", reply[6:8])[0])


@dataclass(frozen=True)
class Flood:
    """What dnsperf saw."""

    completed: int
    lost: int
    per_second: float


def flood(port, questions, seconds, edns=False, cookie=False, rate=None):
    """Asks as fast as answers come, or so many times a second."""
    command = ["taskset", "--cpu-list", str(LOAD_CORE), "dnsperf", "-s", "127.0.0.1", "-p", str(port)]
    command += ["-d", str(questions), "-l", str(seconds), "-t", "2", "-b", str(BUFFER_KILOBYTES)]
    command += ["-q", str(OUTSTANDING if rate is None else OUTSTANDING_AT_A_RATE)]
    command += ["-e"] if edns else []
    command += ["-E", f"10:{COOKIE.hex()}"] if cookie else []
    command += ["-Q", str(int(rate))] if rate else []
    told = subprocess.run(command, capture_output=True, text=True)
    try:
        completed = int(re.search(r"Queries completed: +(\d+)", told.stdout)[1])
        lost = int(re.search(r"Queries lost: +(\d+)", told.stdout)[1])
        per_second = float(re.search(r"Queries per second: +([\d.]+)", told.stdout)[1])
    except TypeError:
        raise Failure(f"dnsperf did not understand:\n{told.stdout}{told.stderr}") from None
    return Flood(completed, lost, per_second)


def dropped(port):
    """Datagrams that the kernel could not queue: for this port's sockets, and for all sockets of this host."""
    sockets = Path("/proc/net/udp").read_text().splitlines()[1:]
    here = sum(int(line.split()[-1]) for line in sockets if line.split()[1].endswith(f":{port:04X}"))
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Udp:")
    )
    return here, int(dict(zip(names, values))["RcvbufErrors"])
