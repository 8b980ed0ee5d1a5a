"""dnsperf: as many queries as a server answers."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from host import LOAD_CORE
from processes import Failure
from queries import CLIENT_COOKIE

OUTSTANDING = 100
"""Questions that dnsperf has in flight: its default."""
OUTSTANDING_AT_A_RATE = 1_000
"""So many that a slow answer does not hold the next question back. With more, dnsperf
floods the server after a delay of its own, to catch up."""
BUFFER_KILOBYTES = 4096
"""Of dnsperf's own socket, so that nothing is lost there."""


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
    command += ["-E", f"10:{CLIENT_COOKIE.hex()}"] if cookie else []
    command += ["-Q", str(int(rate))] if rate else []
    result = subprocess.run(command, capture_output=True, text=True)
    try:
        completed = int(re.search(r"Queries completed: +(\d+)", result.stdout)[1])
        lost = int(re.search(r"Queries lost: +(\d+)", result.stdout)[1])
        per_second = float(re.search(r"Queries per second: +([\d.]+)", result.stdout)[1])
    except TypeError:
        raise Failure(f"dnsperf did not understand:\n{result.stdout}{result.stderr}") from None
    return Flood(completed, lost, per_second)


def dropped(port):
    """Datagrams that the kernel could not queue: for this port's sockets, and for all sockets of this host."""
    sockets = Path("/proc/net/udp").read_text().splitlines()[1:]
    here = sum(int(line.split()[-1]) for line in sockets if line.split()[1].endswith(f":{port:04X}"))
    names, values = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Udp:")
    )
    return here, int(dict(zip(names, values))["RcvbufErrors"])
