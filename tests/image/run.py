"""A container of the image as Kubernetes runs it: another user than root, no capabilities, a read-only root file system, and
its configuration in a directory whose files are links. It is asked over UDP and TCP, follows an edit, and stops.

    run.py DIRECTORY

DIRECTORY has `bundle`, the unpacked image, and `config`, the directory of the configuration. Runs on a host of its own (see
tests/real_clients/host), whose network the container shares. Prints a line "ok - ..." for each check.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
sys.dont_write_bytecode = True
from cluster import Cluster

DIRECTORY = Path(sys.argv[1])
CONTAINER = "alternator-dns-test"
# Without a control group of its own: the hierarchy may not be ours to write.
CRUN = ["crun", "--cgroup-manager=disabled", f"--root={DIRECTORY / 'crun'}"]
ZONE = "alternator.east.example.com"


class Failure(Exception):
    pass


def check(condition, sentence, detail=""):
    if not condition:
        raise Failure(f"{sentence}\n{detail}")
    print(f"ok - {sentence}", flush=True)


def until(condition, seconds, sentence):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds} s in vain: {sentence}")
        time.sleep(0.05)
    print(f"ok - {sentence}", flush=True)


def configure(ttl, name):
    """Puts the configuration in place as the kubelet does: a new directory, and one rename of the link that leads there."""
    config = DIRECTORY / "config"
    (config / name).mkdir(exist_ok=True)
    (config / name / "config.toml").write_text(f"""\
[server]
listen = ["0.0.0.0:5353"]
admin = "0.0.0.0:9153"
nameservers = [{{ name = "alternator-dns.alternator-dns.svc.cluster.local" }}]

[zones."{ZONE}"]
seeds = ["127.0.1.1"]
ttl = "{ttl}s"
""")
    for path in (config, config / name):
        path.chmod(0o755)
    (config / name / "config.toml").chmod(0o644)
    os.symlink(name, config / "..data_tmp")
    os.rename(config / "..data_tmp", config / "..data")


def confine():
    """What the manifests for Kubernetes ask for, in the terms of the runtime. User and program are those of the image."""
    path = DIRECTORY / "bundle" / "config.json"
    spec = json.loads(path.read_text())
    spec["root"]["readonly"] = True
    process = spec["process"]
    process.update(terminal=False, noNewPrivileges=True, capabilities={})
    process.pop("rlimits", None)
    spec["linux"]["namespaces"] = [it for it in spec["linux"]["namespaces"] if it["type"] != "network"]
    spec["linux"].pop("resources", None)
    writable = ["nosuid", "nodev", "noexec", "mode=0700", "uid=65532", "gid=65532"]
    spec["mounts"] = [it for it in spec["mounts"] if it["type"] not in ("cgroup", "sysfs")] + [
        {"destination": "/etc/alternator-dns", "type": "bind", "source": str(DIRECTORY / "config"), "options": ["rbind", "ro"]},
        {"destination": "/var/lib/alternator-dns", "type": "tmpfs", "source": "tmpfs", "options": writable},
        {"destination": "/run/alternator-dns", "type": "tmpfs", "source": "tmpfs", "options": writable},
    ]
    path.write_text(json.dumps(spec))
    return process


def mount_control_groups():
    """crun wants the unified hierarchy of control groups, at least to look at. This host has its own view of mounts."""
    subprocess.run(["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"], capture_output=True)


def run_once(*arguments):
    """A container that runs the program with these arguments: its exit status, and what it printed."""
    path = DIRECTORY / "bundle" / "config.json"
    kept = path.read_text()
    spec = json.loads(kept)
    spec["process"]["args"] = [spec["process"]["args"][0], *arguments]
    path.write_text(json.dumps(spec))
    done = subprocess.run([*CRUN, "run", "--bundle", DIRECTORY / "bundle", CONTAINER + "-once"],
                          capture_output=True, text=True, timeout=30)
    path.write_text(kept)
    return done.returncode, done.stdout + done.stderr


def dig(transport, *arguments):
    return subprocess.run(["dig", "@127.0.0.1", "-p", "5353", transport, "+tries=1", "+time=2", *arguments, ZONE],
                          capture_output=True, text=True, timeout=20).stdout


def answer(transport):
    """TTL and address of the first record of the answer."""
    words = dig(transport, "+noall", "+answer").split()
    return (words[1], words[4]) if len(words) >= 5 else None


def main():
    process = confine()
    check(process["user"]["uid"] == process["user"]["gid"] == 65532, "the image's user is 65532", process["user"])
    check(process["args"] == ["/usr/bin/alternator-dns", "run"], "it runs the server", process["args"])
    configure(4, "..1")
    mount_control_groups()
    status, output = run_once("--version")
    if status != 0:
        print(f"skipped - the image: crun can run no container here: {output.strip()[-300:]}")
        return
    status, output = run_once("check")
    check(status == 0, "alternator-dns check in the container reads the configuration", output)

    Cluster(["127.0.1.1", "127.0.1.2"])
    with open(DIRECTORY / "container.log", "w") as log:
        container = subprocess.Popen([*CRUN, "run", "--bundle", DIRECTORY / "bundle", CONTAINER],
                                     stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        use(container)
    except Failure:
        print((DIRECTORY / "container.log").read_text())
        raise
    finally:
        subprocess.run([*CRUN, "delete", "--force", CONTAINER], capture_output=True)


def use(container):
    nodes = {"127.0.1.1", "127.0.1.2"}
    until(lambda: answer("+notcp") and answer("+notcp")[1] in nodes, 15, "it answers over UDP with a node")
    check(answer("+tcp")[1] in nodes, "and over TCP")
    state = json.loads(subprocess.run([*CRUN, "state", CONTAINER], capture_output=True, text=True, check=True).stdout)
    status = Path(f"/proc/{state['pid']}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    check(set(fields["Uid"].split()) == {"65532"}, "the process runs as 65532", fields["Uid"])
    check({int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}, "without any capability", status)
    check(fields["NoNewPrivs"] == "1", "and can gain no privilege", status)
    mounts = Path(f"/proc/{state['pid']}/mounts").read_text().splitlines()
    root = next(line.split()[3] for line in mounts if line.split()[1] == "/")
    check("ro" in root.split(","), "its root file system is read-only", root)

    # crun takes root where no user is named; Kubernetes takes that of the container.
    shown = subprocess.run([*CRUN, "exec", "--user", "65532:65532", CONTAINER, "alternator-dns", "status"],
                           capture_output=True, text=True, timeout=20)
    check(shown.returncode == 0 and f"{ZONE}.  live" in shown.stdout, "alternator-dns status in the container shows the zone live",
          shown.stdout + shown.stderr)
    configure(9, "..2")
    until(lambda: (answer("+notcp") or [None])[0] == "9", 10, "it follows an edit of the ConfigMap")
    subprocess.run([*CRUN, "kill", CONTAINER, "TERM"], check=True)
    check(container.wait(timeout=10) == 0, "SIGTERM ends it with status 0", container.returncode)


try:
    main()
except Failure as failure:
    print(f"not ok - {failure}", flush=True)
    sys.exit(1)
