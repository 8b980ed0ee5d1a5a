"""Configurations of the servers beside ours: gdnsd, NSD and Knot. Each function writes one into a directory and returns
the command that starts the server in the foreground, with one worker."""


def gdnsd(directory, listen, zones, options="", plugins=""):
    """`zones` are texts of zone files, by name. No zone may lie below another one."""
    (directory / "zones").mkdir()
    for name, text in zones.items():
        (directory / "zones" / name).write_text(text)
    (directory / "config").write_text(f"""\
options => {{
    listen => [ "{listen}" ],
    run_dir => "{directory}/run",
    state_dir => "{directory}/state",
    udp_threads => 1,
    tcp_threads => 1,
{options}}}
{plugins}""")
    return ["/usr/sbin/gdnsd", "-c", directory, "start"]


def nsd(directory, listen, zones, server="", more=""):
    """`zones` are names of files in the directory, by zone; `server` are more lines of that section; `more` are other
    sections, such as zones that are fetched."""
    # Rate limiting is on by default, and dropped queries would be counted as a fault. Minimal responses leave the NS
    # records out of answers to other queries, as the other servers do.
    (directory / "nsd.conf").write_text(
        f"""\
server:
    ip-address: {listen}
    username: ""
    zonesdir: "{directory}"
    database: ""
    pidfile: "{directory}/nsd.pid"
    xfrdfile: "{directory}/xfrd.state"
    zonelistfile: "{directory}/zone.list"
    cookie-secret-file: "{directory}/no-secrets"
    server-count: 1
    rrl-ratelimit: 0
    rrl-whitelist-ratelimit: 0
    minimal-responses: yes
    round-robin: yes
    answer-cookie: yes
{server}remote-control:
    control-enable: no
"""
        + "".join(f'zone:\n    name: "{name}"\n    zonefile: "{file}"\n' for name, file in zones.items())
        + more
    )
    return ["/usr/sbin/nsd", "-d", "-c", directory / "nsd.conf"]


def knot(directory, listen, zones, file=None, *, server="", template="", zone="", more="", log="info"):
    """`zones` are names; `file` is the zone file of each, in the directory, where %s stands for the zone's name.
    `server`, `template` and `zone`, which is of each zone, are more lines of these sections; `more` are other sections."""
    (directory / "knot.conf").write_text(
        f"""\
server:
    listen: {listen}
    rundir: "{directory}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
{server}database:
    storage: "{directory}"
log:
  - target: stderr
    any: {log}
{more}template:
  - id: default
    storage: "{directory}"
"""
        + (f'    file: "{file}"\n' if file else "")
        + f"{template}zone:\n"
        + "".join(f"  - domain: {name}\n{zone}" for name in zones)
    )
    return ["/usr/sbin/knotd", "-c", directory / "knot.conf"]
