"""One address for two instances: keepalived, and a routing protocol, move it by `/serving`."""

import subprocess
import threading
import time

import blocks
from cluster import Cluster
from network import Host, address, ask, ip
from recipes import FIRST, SERVER, ZONE
from servers import spawn, until, waited

ROUTER = "10.0.0.1"
PATIENCE = 60.0
INTERVAL = 0.1
"""Seconds between two queries of the client."""
BOUND = 8.0
"""Seconds without an answer, on a busy machine: a second until it is noticed, two for a reply of /serving, and one or two
until the other instance has the address."""


class Instance:
    """alternator-dns on a host of its own in the common network."""

    def __init__(self, number, program, directory, text):
        self.name = f"host{number}"
        self.program, self.directory, self.text = program, directory / f"{directory.name}-{number}", text
        self.directory.mkdir(parents=True)
        self.host = Host.bridged(self.name, f"10.0.0.1{number}")
        (self.directory / "config.toml").write_text(text)
        self.start()

    def spawn(self, log, *words, **environment):
        return spawn(self.directory, log, "nsenter", f"--net={self.host.namespace}", *words, **environment)

    def start(self):
        environment = {"RUNTIME_DIRECTORY": str(self.directory)}
        words = [self.program, "run", "--config", self.directory / "config.toml"]
        self.process = self.spawn("alternator-dns.log", *words, **environment)


class Client(threading.Thread):
    """Asks the address ten times a second, and notes when it was answered."""

    def __init__(self):
        super().__init__(daemon=True)
        self.answered = [time.monotonic()]
        self.ended = False

    def run(self):
        while not self.ended:
            began = time.monotonic()
            reply = ask(ZONE, server=SERVER, seconds=INTERVAL)
            if reply is not None and reply.data("A") == [FIRST]:
                self.answered.append(time.monotonic())
            time.sleep(max(0.0, began + INTERVAL - time.monotonic()))

    def longest(self, action, settled):
        """The longest time without an answer, from an action until it has settled and there are answers again."""
        start = time.monotonic()
        action()
        until(settled, "the address has moved", PATIENCE)
        moved = time.monotonic()
        until(lambda: self.answered[-1] > moved + 1.0, "the address is answered", PATIENCE)
        times = [at for at in self.answered if at > start - 1.0]
        return max(after - before for before, after in zip(times, times[1:]))


def run(program, directory, report):
    texts = blocks.recipes()
    address(FIRST)
    Cluster([FIRST])
    ip("link", "add", "lan", "type", "bridge")
    ip("address", "add", f"{ROUTER}/24", "dev", "lan")
    ip("link", "set", "lan", "up")
    for way in (Keepalived, Anycast):
        instances = [Instance(number, program, directory / way.name, texts["one-address"]) for number in (1, 2)]
        trial(way(instances, texts), instances, report)
        for instance in instances:
            instance.host.end()


def trial(way, instances, report):
    one, two = instances
    client = Client()
    client.start()
    until(lambda: way.holder() is one, f"{way.name} brings the address to the first instance", PATIENCE)
    until(lambda: ask(ZONE, server=SERVER, seconds=0.5) is not None, "the address answers", PATIENCE)
    for sentence, action, settled in (
        ("the process is killed", one.process.kill, lambda: way.holder() is two),
        ("it returns", one.start, lambda: way.holder() is one),
        ("its host loses the network", one.host.disconnect, lambda: way.has(two)),
        ("its host returns", one.host.connect, lambda: way.holder() is one),
    ):
        seconds = client.longest(action, settled)
        problem = None if seconds <= BOUND else f"more than {BOUND} s"
        report.check(f"{way.name}: {sentence}: {seconds:.1f} s without an answer", problem)
    two.process.kill()
    one.process.kill()
    kept = waited(way.holder, 10)
    report.check(f"{way.name}: without any instance that serves, one keeps the address", None if kept else "none has it")
    client.ended = True
    client.join()


class Way:
    """A way to move an address between instances."""

    def __init__(self, instances, texts):
        self.instances = instances
        self.start(texts)

    def holder(self):
        """The one instance that has the address."""
        holders = [instance for instance in self.instances if self.has(instance)]
        return holders[0] if len(holders) == 1 else None


class Keepalived(Way):
    name = "keepalived"

    def start(self, texts):
        """The second host has another priority, as the document says."""
        for instance, priority in zip(self.instances, ("priority 100", "priority 90")):
            file = instance.directory / "keepalived.conf"
            file.write_text(texts["keepalived"].replace("priority 100", priority))
            files = ["--pid", instance.directory / "pid", "--vrrp_pid", instance.directory / "vrrp.pid"]
            words = ["/usr/sbin/keepalived", "--dont-fork", "--log-console", "--vrrp", "--use-file", file, *files]
            instance.spawn("keepalived.log", *words)
        ip("route", "add", f"{SERVER}/32", "dev", "lan")

    def has(self, instance):
        words = ["nsenter", f"--net={instance.host.namespace}", "ip", "-o", "address", "show", "to", SERVER]
        return bool(subprocess.run(words, capture_output=True).stdout)


class Anycast(Way):
    """The common network's router takes the shortest path, and of equal ones that of the first instance."""

    name = "anycast"

    def start(self, texts):
        ip("route", "del", f"{SERVER}/32", "dev", "lan")
        for instance in self.instances:
            instance.host.run("ip", "address", "add", f"{SERVER}/32", "dev", "lo")
            (instance.directory / "bird.conf").write_text(texts["anycast-bird"])
            (instance.directory / "check").write_text(texts["anycast-check"])
            script = "mount -t tmpfs none /run && mkdir /run/bird && { bird -f -c bird.conf & exec sh check; }"
            instance.spawn("bird.log", "unshare", "--mount", "sh", "-c", script)
        directory = self.instances[0].directory.parent
        (directory / "router.conf").write_text(
            "protocol device { }\nprotocol kernel { ipv4 { import none; export all; }; }\n"
            'protocol bfd { interface "*" { interval 200 ms; }; }\n'
            + "".join(
                f"protocol bgp host{number} {{ local {ROUTER} as 65000; neighbor 10.0.0.1{number} as 65053; bfd yes; "
                "connect delay time 1; connect retry time 1; error wait time 1, 2; "
                f"ipv4 {{ import filter {{ bgp_med = {number}; accept; }}; export none; }}; }}\n"
                for number in (1, 2)
            )
        )
        spawn(directory, "router.log", "bird", "-f", "-c", "router.conf", "-s", directory / "router.ctl")

    def has(self, instance):
        route = subprocess.run(["ip", "route", "show", SERVER], capture_output=True, text=True).stdout
        return f"via {instance.host.address} " in route
