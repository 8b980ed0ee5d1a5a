"""What is measured, and what measures it: Debian's packages, and this project's own programs, as they are released
but with the names of functions."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target")).resolve()
WORK = TARGET / "bench"
PROFILE = "profiling"
PEERS = ("dnsperf", "gdnsd", "nsd", "knot", "valgrind")
TOOLS = ("iproute2", "util-linux", "binutils")


@dataclass(frozen=True)
class Programs:
    """Paths of what is built here."""

    ours: str
    echo: str
    nodes: str
    latency: str
    replies: str


def install(*packages):
    """Installs those Debian packages that are missing."""
    installed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages], capture_output=True, text=True
    ).stdout
    missing = [package for package in packages if f"{package} installed" not in installed.splitlines()]
    if not missing:
        return
    print(f"installing {' '.join(missing)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with asleep():
        for command in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", *missing]):
            done = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                sys.exit(f"{done.stdout[-2000:]}{done.stderr[-2000:]}\napt-get could not install {missing}.")


@contextlib.contextmanager
def asleep():
    """Debian starts a service as soon as it is installed, and these would take this machine's port 53."""
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            policy.unlink()


def build():
    """Builds all that is measured; ALTERNATOR_DNS names another binary of the server."""
    WORK.mkdir(parents=True, exist_ok=True)
    built = {}
    benches = [word for name in ("echo", "nodes", "latency", "replies") for word in ("--bench", name)]
    for line in cargo(*benches, "--message-format=json-render-diagnostics").splitlines():
        message = json.loads(line)
        if message.get("executable"):
            built[message["target"]["name"]] = message["executable"]
    ours = os.environ.get("ALTERNATOR_DNS")
    if not ours:
        # By itself and last: together with a bench, the server would get features that only tests ask for.
        cargo("--bin", "alternator-dns")
        ours = TARGET / PROFILE / "alternator-dns"
    return Programs(str(Path(ours).resolve()), built["echo"], built["nodes"], built["latency"], built["replies"])


def cargo(*arguments):
    command = ["cargo", "build", "--profile", PROFILE, "--locked", "--quiet", *arguments]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} has failed.")
    return done.stdout


def version(package):
    query = ["dpkg-query", "-W", "-f", "${Version}", package]
    return subprocess.run(query, capture_output=True, text=True).stdout or "?"
