"""The host that is measured on: a network of its own, a core for the server, a core for everything else."""

import json
import os
import platform
import re
import resource
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from needs import PROJECT, Programs

NODES_V6 = "fd00:7f::/64"
"""Where nodes have their second addresses (nodes.rs); all of them are on this host."""


def enter(programs, directory):
    """Starts this program anew on a host of its own, which ends with it: there every port is free, no packet is
    filtered, and the kernel's counters count no other packets."""
    if os.geteuid() != 0 or sys.platform != "linux":
        sys.exit("This makes namespaces, for which it has to be root on Linux.")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("This needs two cores: one for the server, and one for the clients.")
    directory.mkdir(parents=True, exist_ok=True)
    host = str(PROJECT / "tests" / "real_clients" / "host")
    environment = {**os.environ, "BENCH_PROGRAMS": json.dumps(asdict(programs))}
    script = str(Path(sys.argv[0]).resolve())
    os.execve(host, [host, str(directory), sys.executable, script, *sys.argv[1:]], environment)


def inside():
    """The programs, once we are on that host; else nothing."""
    programs = os.environ.get("BENCH_PROGRAMS")
    return Programs(**json.loads(programs)) if programs else None


def kind():
    """The machine in a few words, for the head of a table."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}, Linux {platform.release()}"


def settle():
    """Makes the host ready and takes the second core."""
    subprocess.run(["ip", "-6", "route", "add", "local", NODES_V6, "dev", "lo"], check=True)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.sched_setaffinity(0, {LOAD_CORE})


# Inherited by the processes that we start, so that they know it once we are bound to one core.
CORES = os.environ.setdefault("BENCH_CORES", " ".join(map(str, sorted(os.sched_getaffinity(0))[:2])))
SERVER_CORE, LOAD_CORE = (int(core) for core in (CORES.split() * 2)[:2])
