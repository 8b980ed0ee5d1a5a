"""Starts the servers under test on loopback addresses, each with the same zones."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request

import fixture
import peers
from queries import Server, Silence
from wire import RD, query

SECRET = "0123456789abcdef0011223344556677"
"""Of the cookies (RFC 9018), the same everywhere."""
FORMER_SECRET = "ffeeddccbbaa99887766554433221100"
"""The former cookie secret; a server of ours still accepts its cookies."""
IDENTITY = "one.alt.test"
VERSION = "unspoken"
OURS, GDNSD, NSD, KNOT = "alternator-dns", "gdnsd", "NSD", "Knot"
ADDRESSES = {OURS: "127.0.0.11", GDNSD: "127.0.0.12", NSD: "127.0.0.13", KNOT: "127.0.0.14"}
OURS_IPV6 = "fd00::53"
CLIENT_IPV6 = "fd00::1"
WILDCARD_PORT = 5300
"""Where the second server of ours listens on every address there is."""
FENCED = "127.0.0.21"
"""Where a second server of ours listens, with tight limits."""
FORWARDING = "127.0.0.22"
"""Where a third one listens, which passes other names on."""
UPSTREAM = "127.0.0.15"
"""Where a Knot serves the rest of the world to it."""
PATIENCE = 20.0

CHILDREN = []


def spawn(directory, log, *arguments, **environment):
    """Starts a program whose output goes to a log."""
    with (directory / log).open("ab") as output:
        child = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env={"PATH": os.environ["PATH"], **environment},
        )
    CHILDREN.append(child)
    return child


def stop_all():
    for child in CHILDREN:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 3
    for child in CHILDREN:
        try:
            child.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def until(condition, what, seconds=PATIENCE):
    """Waits for a condition; how long it took, in seconds."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"waited {seconds} s in vain until {what}")
        time.sleep(0.01)
    return time.monotonic() - start


def waited(condition, seconds=8):
    try:
        until(condition, "", seconds)
    except TimeoutError:
        return False
    return True


def answers(server, name="c1.alt.test"):
    try:
        reply = server.udp(query(name, flags=RD))
    except Silence:
        return False
    return reply is not None and bool(reply.answer)


# --- Ours --------------------------------------------------------------------------------------------------------


class Resolver:
    """alternator-dns with a configuration and an admin interface."""

    def __init__(self, program, directory, address):
        self.program, self.address = program, address
        self.directory = directory
        self.directory.mkdir(parents=True)
        self.config = directory / "config.toml"
        self.server = Server(OURS, address)
        self.process = None

    def check(self, text):
        """Whether a configuration is good."""
        trial = self.directory / "trial.toml"
        trial.write_text(text)
        return subprocess.run([self.program, "check", "--config", trial], capture_output=True).returncode == 0

    def write(self, text):
        self.config.write_text(text)

    def start(self, **environment):
        self.process = spawn(
            self.directory,
            "alternator-dns.log",
            self.program,
            "run",
            "--config",
            self.config,
            RUNTIME_DIRECTORY=str(self.directory),
            **environment,
        )

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)

    def command(self, *words):
        return subprocess.run(
            [self.program, *words],
            capture_output=True,
            text=True,
            timeout=30,
            env={"PATH": os.environ["PATH"], "RUNTIME_DIRECTORY": str(self.directory)},
        )

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.address}:9153{path}", timeout=5) as reply:
                return reply.read().decode()
        except (OSError, urllib.error.URLError):
            return ""

    def zone(self, name):
        zones = json.loads(self.get("/api/zones") or '{"zones": []}')["zones"]
        return next((zone for zone in zones if zone["name"] == name + "."), {"state": None, "nodes": []})

    def metric(self, series):
        for line in self.get("/metrics").splitlines():
            if line.startswith(f"alternator_dns_{series} "):
                return float(line.split()[1])
        return 0.0

    def log(self):
        return (self.directory / "alternator-dns.log").read_text(errors="replace")


def head(address, lines=(), more=()):
    """The configuration without its zones; `more` are addresses with ports that are listened on as well."""
    listen = ", ".join(f'"{endpoint}"' for endpoint in [f"{address}:53", *more])
    servers = ", ".join(
        f'{{ name = "{name}"' + (f', addresses = ["{address}"]' if address else "") + " }"
        for name, address in fixture.NAME_SERVERS.items()
    )
    return "\n".join(
        [
            "[server]",
            f"listen = [{listen}]",
            f'admin = "{address}:9153"',
            f"nameservers = [{servers}]",
            *lines,
            "[defaults]",
            f'ttl = "{fixture.TTL}s"',
            'refresh = "200ms"',
            'timeout = "500ms"',
            'health = { interval = "200ms", timeout = "500ms", rise = 2, fall = 2 }',
            "",
        ]
    )


def with_zones(text, zones):
    return text + "\n".join(zone.section() for zone in zones)


def understood(resolver, lines):
    """Those of some lines for [server] that this version takes, by their keys."""
    zone = fixture.ZONES[0]
    return {
        key: line for key, line in lines.items() if resolver.check(with_zones(head(resolver.address, [line]), [zone]))
    }


# --- The others --------------------------------------------------------------------------------------------------


def start_gdnsd(directory, zones):
    """Zones may not lie below one another."""
    names = [zone.name for zone in zones]
    apart = [zone for zone in zones if not any(zone.name.endswith("." + name) for name in names)]
    directory.mkdir(parents=True)
    options = f'    nsid_ascii => "{IDENTITY}",\n    chaos_response => "{VERSION}",\n'
    files = {zone.name: zone.file() for zone in apart}
    spawn(directory, "gdnsd.log", *peers.gdnsd(directory, ADDRESSES[GDNSD], files, options))


def start_nsd(directory, zones):
    directory.mkdir(parents=True)
    for zone in zones:
        (directory / zone.name).write_text(zone.file())
    server = f"""\
    identity: "{IDENTITY}"
    version: "{VERSION}"
    nsid: "ascii_{IDENTITY}"
    cookie-secret: "{SECRET}"
"""
    files = {zone.name: zone.name for zone in zones}
    spawn(directory, "nsd.log", *peers.nsd(directory, ADDRESSES[NSD], files, server))


def start_knot(directory, zones):
    directory.mkdir(parents=True)
    for zone in zones:
        (directory / f"{zone.name}.zone").write_text(zone.file())
    command = peers.knot(
        directory,
        f"{ADDRESSES[KNOT]}@53",
        [zone.name for zone in zones],
        "%s.zone",
        server=f'    identity: "{IDENTITY}"\n    version: "{VERSION}"\n    nsid: "{IDENTITY}"\n    answer-rotation: on\n',
        template="    global-module: mod-cookies/shared\n",
        more=f"mod-cookies:\n  - id: shared\n    secret: 0x{SECRET}\n",
    )
    spawn(directory, "knot.log", *command)


def start_upstream(directory, records):
    """The root zone and these records; any other name does not exist, as a recursive resolver would answer."""
    directory.mkdir(parents=True)
    root = ". 60 SOA ns.world.test. hostmaster.world.test. 1 60 10 1209600 5\n. 60 NS ns.world.test.\n"
    (directory / "zone").write_text(root + records)
    spawn(directory, "knot.log", *peers.knot(directory, f"{UPSTREAM}@53", ["."], "zone"))


PEERS = {GDNSD: start_gdnsd, NSD: start_nsd, KNOT: start_knot}


def versions():
    """What is installed, as its package says."""
    packages = {GDNSD: "gdnsd", NSD: "nsd", KNOT: "knot", "unbound": "unbound", "glibc": "libc6", "musl": "musl"}
    versions = {}
    for name, package in packages.items():
        query_ = ["dpkg-query", "-W", "-f", "${Version}", package]
        versions[name] = subprocess.run(query_, capture_output=True, text=True).stdout or "?"
    return versions
