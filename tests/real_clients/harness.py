"""What the programs that test real clients share: child processes, clusters of cluster.py, and checks."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

CLUSTER = Path(__file__).resolve().parent / "cluster.py"
PORT = 8000
ADMIN = "http://127.0.0.1:9153"
CHILDREN = []


def spawn(arguments, log, **keywords):
    """Starts a program whose standard error goes to a log; the directory of the log is its home."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(log.parent), **keywords.pop("env", {})}
    child = subprocess.Popen(arguments, stderr=open(log, "ab"), env=environment, text=True, **keywords)
    CHILDREN.append(child)
    return child


class Cluster:
    """A cluster process (cluster.py), and what is known of its nodes."""

    def __init__(self, directory, name, zone, first, ttl, answers):
        self.name = name
        self.zone = zone
        self.ttl = ttl
        self.answers = answers
        self.live = set()
        self.process = spawn(
            [sys.executable, CLUSTER, str(PORT)],
            directory / f"{name}.log",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for address in first:
            self.start(address)

    @property
    def url(self):
        return f"http://{self.zone}:{PORT}"

    def order(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        check(answer, f"the cluster {self.name} carries out: {' '.join(words)}", quiet=True)
        return json.loads(answer)

    def start(self, address):
        self.order("start", address)
        self.live.add(address)

    def leave(self, address):
        self.order("leave", address)
        self.live.remove(address)

    def stop(self, address):
        self.order("stop", address)

    def requests(self, address):
        return self.order("counts").get(address, {}).get("requests", 0)


def start_server(binary, directory, config):
    """The server with this text as its configuration, once it is ready."""
    file = directory / "config.toml"
    file.write_text(config)
    runtime = directory / "run"
    runtime.mkdir(exist_ok=True)
    server = spawn(
        [binary, "run", "--config", file],
        directory / "alternator-dns.log",
        stdout=open(directory / "alternator-dns.log", "ab"),
        env={"RUNTIME_DIRECTORY": str(runtime)},
    )

    def ready():
        check(server.poll() is None, "the server runs", f"it ended with status {server.returncode}", quiet=True)
        try:
            return get("/readyz") is not None
        except (OSError, urllib.error.URLError):
            return False

    took = until(ready, 15, "/readyz")
    check(True, f"the server is ready after {took:.2f} s")
    return server


def get(path):
    with urllib.request.urlopen(ADMIN + path, timeout=5) as reply:
        return reply.read().decode()


def show_logs(directory):
    for log in sorted(directory.glob("*.log")):
        print(f"\n-- {log.name}, its last lines")
        print("\n".join(log.read_text(errors="replace").splitlines()[-40:]))


class Failure(Exception):
    pass


def check(condition, sentence, detail="", quiet=False):
    if not condition:
        raise Failure(f"{sentence}\n{detail}".rstrip())
    if not quiet:
        print(f"ok - {sentence}", flush=True)


def until(condition, seconds, what):
    """Waits for a condition; how long it took, in seconds."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise Failure(f"waited {seconds} s in vain for: {what}")
        time.sleep(0.02)
    return time.monotonic() - start


def heading(text):
    print(f"\n-- {text}", flush=True)
