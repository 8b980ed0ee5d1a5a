"""The neighbours: each starts on the host of the calling thread, with a configuration around the recipe that makes it an
ordinary, careful resolver: it validates, and drops private addresses, if it can."""

import subprocess
from pathlib import Path

from parents import RECURSIVE, UNAWARE
from servers import spawn

HERE = Path(__file__).resolve().parent


class Setting:
    """What all neighbours need to know."""

    def __init__(self, world, directory, tools):
        self.world, self.directory, self.tools = world, directory, tools
        self.log = directory / "ours" / "alternator-dns.log"
        """Of the server under test, with each query."""

    def of(self, name):
        own = self.directory / name.replace(" ", "-")
        own.mkdir()
        return own


def hints(own, root):
    file = own / "hints"
    file.write_text(f". 3600 NS ns0.example.com.\nns0.example.com. 3600 A {root}\n")
    return file


def unbound(setting, own, recipe, *, listen="127.0.0.1", root=UNAWARE):
    (own / "recipe.conf").write_text(recipe)
    tag, algorithm, kind, digest = setting.world.anchor_words
    (own / "unbound.conf").write_text(f"""\
server:
    interface: {listen}
    access-control: 10.0.0.0/8 allow
    do-ip6: no
    username: ""
    chroot: ""
    directory: "{own}"
    pidfile: "{own}/unbound.pid"
    use-syslog: no
    do-daemonize: no
    num-threads: 1
    root-hints: "{hints(own, root)}"
    trust-anchor: ". DS {tag} {algorithm} {kind} {digest}"
    private-address: 10.0.0.0/8
remote-control:
    control-enable: no
include-toplevel: "{own}/recipe.conf"
""")
    spawn(own, "unbound.log", "/usr/sbin/unbound", "-d", "-c", own / "unbound.conf")


def bind(setting, own, recipe, *, options="", root=UNAWARE):
    tag, algorithm, kind, digest = setting.world.anchor_words
    (own / "named.conf.options").write_text(options)
    (own / "named.conf.local").write_text(recipe)
    (own / "named.conf").write_text(f"""\
options {{
    directory "{own}";
    pid-file none;
    session-keyfile none;
    listen-on {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    dnssec-validation yes;
    include "{own}/named.conf.options";
}};
controls {{ }};
trust-anchors {{ . static-ds {tag} {algorithm} {kind} "{digest}"; }};
zone "." {{ type hint; file "{hints(own, root)}"; }};
include "{own}/named.conf.local";
""")
    spawn(own, "named.log", "/usr/sbin/named", "-g", "-4", "-n", "1", "-c", own / "named.conf")


def dnsmasq(setting, own, recipe):
    (own / "recipe.conf").write_text(recipe)
    (own / "dnsmasq.conf").write_text(f"""\
keep-in-foreground
log-facility=-
pid-file=
user=root
listen-address=127.0.0.1
bind-interfaces
no-resolv
no-hosts
stop-dns-rebind
dnssec
trust-anchor=.,{",".join(setting.world.anchor_words)}
server={RECURSIVE}
conf-file={own}/recipe.conf
""")
    spawn(own, "dnsmasq.log", "/usr/sbin/dnsmasq", "-C", own / "dnsmasq.conf")


def coredns(setting, own, recipe):
    (own / "Corefile").write_text(f". {{\n    errors\n    forward . {RECURSIVE}\n    cache\n}}\n{recipe}")
    spawn(own, "coredns.log", setting.tools / "tools" / "bin" / "coredns", "-conf", own / "Corefile")


def dnsdist(setting, own, recipe):
    (own / "dnsdist.conf").write_text('setSecurityPollSuffix("")\n' + recipe)
    spawn(own, "dnsdist.log", "/usr/bin/dnsdist", "--supervised", "--disable-syslog", "-C", own / "dnsdist.conf")


def resolved(setting, own, recipe, *, scope="", exempt=""):
    """systemd-networkd and systemd-resolved, without the rest of systemd. `recipe` is of the link `eth1`, `scope` of the
    global scope; `exempt` is a name that is not validated."""
    files = {
        "systemd/network/10-eth0.network": f"[Match]\nName=eth0\n[Network]\nKeepConfiguration=yes\nDNS={RECURSIVE}\n",
        "systemd/network/10-eth1.network": "[Match]\nName=eth1\n[Network]\nKeepConfiguration=yes\n",
        "systemd/network/10-eth1.network.d/alternator.conf": recipe,
        "systemd/resolved.conf": "[Resolve]\nDNSSEC=yes\nLLMNR=no\n" + scope,
        "dnssec-trust-anchors.d/root.positive": f". IN DS {' '.join(setting.world.anchor_words)}\n",
        "dnssec-trust-anchors.d/alternator.negative": exempt,
    }
    etc = own / "etc"
    subprocess.run(["cp", "-a", "/etc", etc], check=True)
    for unwanted in ("systemd", "dnssec-trust-anchors.d", "resolv.conf"):
        subprocess.run(["rm", "-rf", etc / unwanted], check=True)
    for name, text in files.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(text)
    spawn(own, "resolved.log", HERE / "resolved", own, setting.tools / "resolved" / "root")
