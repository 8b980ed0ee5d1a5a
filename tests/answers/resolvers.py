"""This server, and the caching resolvers in front of it, with the settings that their distributors ship."""

import json
import os
import subprocess
import time
import urllib.request

from network import DNS, LAYOUTS

COUNTS = (1, 2, 3, 8)
"""The values of `answers` that are compared; clusters have eight nodes."""
ADMIN = "127.0.0.1:9153"
PATIENCE = 20.0
DIRECT = "direct"
ADDRESSES = {
    DIRECT: DNS,
    "unbound": "10.9.0.2",
    "BIND": "10.9.0.3",
    "dnsmasq": "10.9.0.4",
    "systemd-resolved": "10.9.0.5",
    "CoreDNS": "10.9.0.6",
    "CoreDNS without loadbalance": "10.9.0.7",
}
"""Whom clients ask."""
NAMES_MAX = 10_000
"""Names of the test that a cache holds. dnsmasq would hold 150."""

CHILDREN = []


def spawn(log, *command, **environment):
    with open(log, "ab") as output:
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": os.environ["PATH"], **environment},
        )
    CHILDREN.append(child)


def stop_all():
    for child in CHILDREN:
        child.terminate()
    for child in CHILDREN:
        try:
            child.wait(timeout=3)
        except subprocess.TimeoutExpired:
            child.kill()


def zone_name(layout, count, lasting):
    return f"{'lasting' if lasting else 'usual'}{count}.{layout}.test"


def zone(layout, count, lasting):
    """`lasting`: with a TTL that outlives the test, so that all queries of a name fall into one TTL."""
    seeds = ", ".join(f'"{address}"' for address in LAYOUTS[layout][:2])
    return f"""\
[zones."{zone_name(layout, count, lasting)}"]
seeds = [{seeds}]
answers = {count}
cluster = "{layout}"
subdomains = true
ttl = "{'1h' if lasting else '4s'}"
"""


def start_ours(program, directory):
    directory.mkdir()
    zones = [zone(layout, count, True) for layout in LAYOUTS for count in COUNTS]
    zones += [zone("v4", count, False) for count in COUNTS]
    config = directory / "config.toml"
    config.write_text(f'[server]\nlisten = ["{DNS}:53"]\nadmin = "{ADMIN}"\n' + "".join(zones))
    spawn(directory / "log", program, "run", "--config", config, RUNTIME_DIRECTORY=str(directory))
    until(all_up, "every node is up in every zone")


def zones():
    try:
        with urllib.request.urlopen(f"http://{ADMIN}/api/zones", timeout=5) as reply:
            return json.loads(reply.read())["zones"]
    except OSError:
        return []


def all_up():
    known = zones()
    return bool(known) and all(len([1 for node in zone["nodes"] if node["answered"]]) == 8 for zone in known)


def without(address):
    """Whether no zone answers with this node."""
    return not any(node["answered"] for zone in zones() for node in zone["nodes"] if node["address"] == address)


def until(condition, what, seconds=PATIENCE):
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            raise TimeoutError(f"waited {seconds} s in vain until {what}")
        time.sleep(0.05)
    return time.monotonic() - start


def start_caches(directory, coredns, resolved):
    """`coredns` is a binary, `resolved` a directory with Debian's package, which cannot be installed without taking
    over the machine's resolv.conf."""
    for name, start in (("unbound", unbound), ("BIND", bind), ("dnsmasq", dnsmasq)):
        (directory / name).mkdir()
        start(directory / name, ADDRESSES[name])
    for name, more in (("CoreDNS", "loadbalance"), ("CoreDNS without loadbalance", "")):
        (directory / name).mkdir()
        core_dns(directory / name, ADDRESSES[name], coredns, more)
    (directory / "systemd-resolved").mkdir()
    systemd_resolved(directory / "systemd-resolved", ADDRESSES["systemd-resolved"], resolved)


def unbound(directory, address):
    (directory / "unbound.conf").write_text(
        f"""\
server:
    interface: {address}
    access-control: 0.0.0.0/0 allow
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: "{directory}/pid"
    use-syslog: no
    module-config: "iterator"
    local-zone: "test." nodefault
remote-control:
    control-enable: no
stub-zone:
    name: "test"
    stub-addr: {DNS}
"""
    )
    spawn(directory / "log", "/usr/sbin/unbound", "-d", "-c", directory / "unbound.conf")


def bind(directory, address):
    (directory / "named.conf").write_text(
        f"""\
options {{
    directory "{directory}";
    pid-file "{directory}/pid";
    session-keyfile "{directory}/key";
    listen-on {{ {address}; }};
    listen-on-v6 {{ none; }};
    allow-query {{ any; }};
    allow-recursion {{ any; }};
    dnssec-validation no;
    empty-zones-enable no;
}};
controls {{ }};
zone "test" {{ type forward; forward only; forwarders {{ {DNS}; }}; }};
"""
    )
    spawn(directory / "log", "/usr/sbin/named", "-g", "-c", directory / "named.conf")


def dnsmasq(directory, address):
    spawn(
        directory / "log",
        *"/usr/sbin/dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --no-hosts --no-resolv".split(),
        *f"--bind-interfaces --listen-address={address} --server=/test/{DNS} --cache-size={NAMES_MAX}".split(),
        f"--pid-file={directory}/pid",
        f"--log-facility={directory}/queries",
    )


def core_dns(directory, address, program, more):
    """As in Kubernetes, but for the time that it caches, which is 30 s there."""
    (directory / "Corefile").write_text(
        f"""\
test:53 {{
    bind {address}
    forward . {DNS}
    cache 3600
    {more}
}}
"""
    )
    spawn(directory / "log", program, "-conf", directory / "Corefile")


def systemd_resolved(directory, address, package):
    """It runs without D-Bus, with a /run and a user of its own."""
    (directory / "resolved.conf").write_text(
        f"[Resolve]\nDNS={DNS}\nDNSStubListener=no\nDNSStubListenerExtra={address}\n"
        "DNSSEC=no\nLLMNR=no\nMulticastDNS=no\n"
    )
    for name, line in (("passwd", "systemd-resolve:x:996:996::/:/usr/sbin/nologin"), ("group", "systemd-resolve:x:996:")):
        lines = [old for old in open(f"/etc/{name}") if not old.startswith("systemd-resolve:")]
        (directory / name).write_text("".join(lines) + line + "\n")
    script = f"""\
mount -t tmpfs none /run
install -d -o 996 -g 996 /run/systemd/resolve
mount --bind {directory}/passwd /etc/passwd
mount --bind {directory}/group /etc/group
mkdir -p /etc/systemd
cp {directory}/resolved.conf /etc/systemd/resolved.conf
exec {package}/lib/systemd/systemd-resolved
"""
    spawn(directory / "log", "unshare", "--mount", "sh", "-ec", script)


def versions(coredns, resolved):
    """What is installed, as packages say it."""
    packages = {"unbound": "unbound", "BIND": "bind9", "dnsmasq": "dnsmasq-base", "glibc": "libc6", "musl": "musl"}
    found = {
        name: output("dpkg-query", "-W", "-f", "${Version}", package).strip() for name, package in packages.items()
    }
    found["systemd-resolved"] = next(resolved.glob("*.deb")).name.split("_")[1]
    found["CoreDNS"] = output(coredns, "-version").split()[0].removeprefix("CoreDNS-")
    found["Go"] = output("go", "env", "GOVERSION").strip().removeprefix("go")
    found["Node"] = output("node", "--version").strip().removeprefix("v")
    found["Java"] = output("java", "--version").split()[1]
    return found


def output(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True).stdout or "? ?"
