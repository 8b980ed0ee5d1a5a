"""The secondaries: NSD, Knot and BIND as Debian has them. Each function writes a configuration into a directory and returns
the command that starts the server in the foreground. What they need for this server is what the README shows."""

import peers

PRIMARY = "127.0.0.11"
NSD, KNOT, BIND = "NSD", "Knot", "BIND"
ADDRESSES = {NSD: "127.0.0.12", KNOT: "127.0.0.13", BIND: "127.0.0.14"}
RESOLVER = "127.0.0.15"
AWAY = "127.0.0.16"
"""A secondary that never answers."""
STRANGER = "127.0.0.99"
KEY = "transfer-key"
SECRET = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
CATALOG = "catalog.invalid"
TLS_NAME = "primary.test"


def nsd(directory, zones, over_tls):
    """NSD 4.6 knows no catalog zones, so each zone has its lines. Those in `over_tls` are fetched over TLS."""
    listen = ADDRESSES[NSD]
    server = f"""\
    xfrdir: "{directory}"
    xfrd-reload-timeout: 0
    tls-cert-bundle: "{directory.parent}/authority.pem"
    verbosity: 2
"""
    more = f"""\
key:
    name: "{KEY}"
    algorithm: hmac-sha256
    secret: "{SECRET}"
tls-auth:
    name: primary
    auth-domain-name: "{TLS_NAME}"
""" + "".join(
        f"""\
zone:
    name: "{zone}"
    allow-notify: {PRIMARY} {KEY}
    request-xfr: {f"AXFR {PRIMARY}@853 {KEY} primary" if zone in over_tls else f"AXFR {PRIMARY} {KEY}"}
    outgoing-interface: {listen}
"""
        for zone in zones
    )
    return peers.nsd(directory, listen, {}, server, more)


def knot(directory):
    listen = ADDRESSES[KNOT]
    more = f"""\
key:
  - id: {KEY}
    algorithm: hmac-sha256
    secret: {SECRET}
remote:
  - id: primary
    address: {PRIMARY}@53
    key: {KEY}
    via: {listen}
acl:
  - id: notify
    address: {PRIMARY}
    key: {KEY}
    action: notify
"""
    template = f"""\
  - id: member
    storage: "{directory}"
    master: primary
    acl: notify
    dnssec-signing: on
    zonefile-load: none
    journal-content: all
"""
    zone = """\
    master: primary
    acl: notify
    catalog-role: interpret
    catalog-template: member
"""
    server = "    answer-rotation: on\n"
    return peers.knot(directory, f"{listen}@53", [CATALOG], server=server, template=template, zone=zone, more=more)


def bind(directory, over_tls):
    """The zones in `over_tls` are fetched over TLS and are not in the catalog's care."""
    listen = ADDRESSES[BIND]
    directory.joinpath("named.conf").write_text(
        f"""\
options {{
    directory "{directory}";
    pid-file "{directory}/named.pid";
    session-keyfile "{directory}/session.key";
    lock-file none;
    listen-on port 53 {{ {listen}; }};
    listen-on-v6 {{ none; }};
    recursion no;
    dnssec-validation no;
    notify no;
    allow-transfer {{ none; }};
    allow-new-zones yes;
    transfer-source {listen};
    serial-query-rate 1000;
    transfers-in 100;
    transfers-per-ns 100;
    rrset-order {{ order random; }};
    catalog-zones {{
        zone "{CATALOG}" default-primaries {{ {PRIMARY} key {KEY}; }} in-memory yes min-update-interval 1;
    }};
}};
controls {{ }};
key "{KEY}" {{ algorithm hmac-sha256; secret "{SECRET}"; }};
tls primary {{ ca-file "{directory.parent}/authority.pem"; remote-hostname "{TLS_NAME}"; }};
zone "{CATALOG}" {{ type secondary; primaries {{ {PRIMARY} key {KEY}; }}; }};
"""
        + "".join(
            f'zone "{zone}" {{ type secondary; primaries {{ {PRIMARY} port 853 key {KEY} tls primary; }}; }};\n'
            for zone in over_tls
        )
    )
    return ["/usr/sbin/named", "-g", "-n", "1", "-c", directory / "named.conf"]


def unbound(directory, zone, anchors):
    """A resolver that validates what Knot signs. `anchors` are its keys."""
    directory.joinpath("anchors").write_text("".join(f"{anchor}\n" for anchor in anchors))
    directory.joinpath("unbound.conf").write_text(
        f"""\
server:
    interface: {RESOLVER}
    username: ""
    chroot: ""
    directory: "{directory}"
    pidfile: "{directory}/unbound.pid"
    do-not-query-localhost: no
    trust-anchor-file: "{directory}/anchors"
    module-config: "validator iterator"
    cache-max-ttl: 0
    local-zone: "test." nodefault
stub-zone:
    name: "{zone}"
    stub-addr: {ADDRESSES[KNOT]}
remote-control:
    control-enable: no
"""
    )
    return ["/usr/sbin/unbound", "-d", "-c", directory / "unbound.conf"]
