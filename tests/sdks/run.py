"""Programs of real SDKs, the server, and two clusters whose nodes refuse, return, hang, are lost and are replaced.

    run.py ALTERNATOR_DNS DIRECTORY BUILT SETTINGS PROGRAM...

ALTERNATOR_DNS is the binary; DIRECTORY is for the configuration and the logs, and BUILT has what tests/parts/sdks built
there. SETTINGS is `default` or `recommended`. README.md says what is done and measured. Runs on a host of its own (see
tests/real_clients/host). Prints a line "ok - ..." or "not ok - ..." for each check, and adds the figures of each program
to figures.jsonl in BUILT.
"""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "real_clients"))
sys.dont_write_bytecode = True
from harness import CHILDREN, PORT, Cluster, Failure, check, heading, show_logs, spawn, start_server, until

PHASES = [("steady", 6), ("refuses", 8), ("returned", 10), ("hangs", 8), ("resumed", 6), ("lost", 6), ("replaced", 10)]
CONNECTIONS = 3_000  # New connections to each cluster over which the spread is measured.
SPREAD = 0.15  # How far from even a node's share of them may be.
PATIENCE = 150  # Seconds in which every program has to make them.
START = 120  # Seconds in which every program has to start: JVMs on two busy cores.


class Program:
    """A running program; its standard output is a line of JSON for each operation."""

    def __init__(self, name, arguments, environment):
        self.name = name
        self.operations = []
        self.log = DIRECTORY / f"{name}.log"
        self.process = spawn(
            [*arguments, SETTINGS, *(cluster.url for cluster in clusters)],
            self.log,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={
                "AWS_ACCESS_KEY_ID": name,  # By which the clusters tell the programs apart.
                "AWS_SECRET_ACCESS_KEY": "not-a-secret",
                "AWS_REGION": "us-east-1",
                "AWS_DEFAULT_REGION": "us-east-1",
                **environment,
            },
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.operations.append(json.loads(line))

    def has_started(self):
        """Whether it has done a round in each cluster."""
        if self.process.poll() is not None:
            raise Failure(f"the program {self.name} ended:\n{self.log.read_text()}")
        done = Counter(operation["zone"] for operation in list(self.operations))
        return all(done[zone] >= 10 for zone in range(len(clusters)))

    def count_connections(self):
        """Tells it to get items without a pause."""
        self.process.stdin.write("fast\n")
        self.process.stdin.flush()


def commands():
    """How each program is started, and what else its environment has."""
    python = [sys.executable, HERE / "python" / "program.py"]
    # Without the optimizing compiler, which would use as much of two cores as the programs.
    java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", f"{BUILT}/java/classes:{BUILT}/java/lib/*", "Program"]
    rust = [BUILT / "rust" / "debug" / "alternator-dns-sdk-program"]
    return {
        "boto3": ([*python, "boto3"], {}),
        "javascript": (["node", BUILT / "javascript" / "program.mjs"], {}),
        "go": ([BUILT / "go" / "program"], {}),
        "rust": ([*rust, "aws"], {}),
        "java-url": ([*java, "url"], {}),
        "java-apache": ([*java, "apache"], {}),
        "java-crt": ([*java, "crt"], {}),
        "scylla-python": ([*python, "scylla"], {"PYTHONPATH": str(BUILT / "python")}),
        "scylla-rust": ([*rust, "scylla"], {}),
    }


# --- The steps ---------------------------------------------------------------------------------------------------


def main():
    heading(f"{', '.join(NAMES)}: {SETTINGS} settings")
    for cluster in clusters:
        warm_up(cluster)
    start_server(ALTERNATOR_DNS, DIRECTORY, configuration())
    all_commands = commands()
    programs = [Program(name, *all_commands[name]) for name in NAMES]
    until(lambda: all(program.has_started() for program in programs), START, "the start of every program")
    times, shares = go_through_phases()
    connections = spread(programs)
    for program in programs:
        program.process.kill()
        record = figures(program, times, shares, connections[program.name])
        with open(BUILT / "figures.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        judge(program, record)


def warm_up(cluster):
    """The first request to a store takes seconds, more than the timeouts of the programs. It is not theirs."""
    request = urllib.request.Request(
        f"http://{sorted(cluster.live)[0]}:{PORT}/",
        json.dumps({
            "TableName": "warm-up",
            "KeySchema": [{"AttributeName": "key", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "key", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
        }).encode(),
        {
            "X-Amz-Target": "DynamoDB_20120810.CreateTable",
            "Content-Type": "application/x-amz-json-1.0",
            "Authorization": "AWS4-HMAC-SHA256 Credential=warm-up/20260101/us-east-1/dynamodb/aws4_request",
        },
    )
    with urllib.request.urlopen(request, timeout=START) as reply:
        check(reply.status == 200, f"the store of {cluster.name} answers", reply.status, quiet=True)


def configuration():
    """The defaults of the server, but for the number of answers."""
    zones = "\n".join(
        f'[zones."{cluster.zone}"]\nseeds = {json.dumps(sorted(cluster.live)[:2])}\nanswers = {json.dumps(cluster.answers)}\n'
        for cluster in clusters
    )
    return f"""\
[server]
listen = ["127.0.0.1:53"]
admin = "127.0.0.1:9153"

[defaults]
port = {PORT}

{zones}"""


def go_through_phases():
    """When each phase began and the last one ended, and each program's requests to the node that had returned."""
    times = []
    shares = None
    for name, seconds in PHASES:
        begun = time.time()
        times.append(begun)
        for cluster, net in zip(clusters, NETS):
            if name in EVENTS:
                EVENTS[name](cluster, net)
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        # The phase is what is waited for: everything in it is timed by the programs.
        if name == "returned":
            time.sleep(max(0, begun + seconds - 5 - time.time()))
            usages()
        time.sleep(max(0, begun + seconds - time.time()))
        if name == "returned":
            shares = usages()
    times.append(time.time())
    for cluster, net in zip(clusters, NETS):
        cluster.stop(f"{net}.1")
    netfilter("delete table ip lost")
    return times, shares


def refuse(cluster, net):
    cluster.stop(f"{net}.2")


def come_back(cluster, net):
    cluster.start(f"{net}.2")


def hang(cluster, net):
    cluster.order("hang", f"{net}.3")


def resume(cluster, net):
    cluster.order("resume", f"{net}.3")


def lose(_, net):
    """As when a machine loses power: what is sent to it has no reply, not even a refusal."""
    netfilter(
        "add table ip lost",
        "add chain ip lost input { type filter hook input priority 0 ; }",
        f"add rule ip lost input ip daddr {net}.1 drop",
    )


def replace(cluster, net):
    cluster.leave(f"{net}.1")
    cluster.start(f"{net}.4")


EVENTS = {"refuses": refuse, "returned": come_back, "hangs": hang, "resumed": resume, "lost": lose, "replaced": replace}


def netfilter(*rules):
    subprocess.run(["nft", "-f", "-"], input="\n".join(rules) + "\n", text=True, check=True, timeout=20)


def usages():
    """What each program has had of the nodes of each cluster since the last call."""
    return [cluster.order("usage") for cluster in clusters]


def spread(programs):
    """Each program's new connections to the nodes of each cluster, when every connection serves one request."""
    global counting
    counting = time.time()
    for cluster in clusters:
        cluster.order("close_each")
    time.sleep(1)  # For the connections of before: each is closed by its next request.
    usages()
    for program in programs:
        program.count_connections()
    counted = {program.name: [Counter() for _ in clusters] for program in programs}
    deadline = time.time() + PATIENCE
    waiting = set(counted)
    while waiting and time.time() < deadline:
        time.sleep(0.5)
        for zone, usage in enumerate(usages()):
            for name in counted:
                for address, of_node in usage.get(name, {}).items():
                    counted[name][zone][address] += of_node["connections"]
        for program in programs:
            if program.name in waiting and all(sum(c.values()) >= CONNECTIONS for c in counted[program.name]):
                waiting.remove(program.name)
                program.process.kill()
    return counted


# --- Figures and checks ------------------------------------------------------------------------------------------


def figures(program, times, shares, connections):
    zones = []
    for zone, cluster in enumerate(clusters):
        returned = shares[zone].get(program.name, {})
        requests = sum(of_node["requests"] for of_node in returned.values())
        again = returned.get(f"{NETS[zone]}.2", {"requests": 0})["requests"]
        counts = {address: connections[zone][address] for address in sorted(cluster.live | connections[zone].keys())}
        zones.append({
            "answers": cluster.answers,
            "phases": phases([o for o in program.operations if o["zone"] == zone], times),
            "share_of_returned": again / requests if requests else None,
            "connections": counts,
            "deviation": deviation(counts),
        })
    return {"program": program.name, "settings": SETTINGS, "zones": zones}


def phases(operations, times):
    by_phase = defaultdict(list)
    for operation in operations:
        by_phase[phase_of(operation, times)].append(operation)
    found = {}
    for name, _ in PHASES:
        started = by_phase[name]
        # Later results are not the store's.
        errors = [o["error"] for o in started if o["error"] and o["start"] + o["seconds"] < counting]
        longest = max(started, key=lambda o: o["seconds"], default=None)
        # An operation that ended only after the fault may have been ended by that.
        until_end = bool(longest) and name in ENDED_BY and longest["start"] + longest["seconds"] > times[ENDED_BY[name]]
        found[name] = {
            "operations": len(started),
            "failed": len(errors),
            "wrong": sum(error.startswith("wrong") for error in errors),
            "longest": longest["seconds"] if longest else None,
            "until_end": until_end,
            "errors": sorted({error[:160] for error in errors})[:3],
        }
    return found


def phase_of(operation, times):
    """The phase in which an operation began; if that had no fault, the fault that began before it ended."""
    began = operation["start"]
    ended = began + operation["seconds"]
    for at, (name, _) in enumerate(PHASES):
        if times[at] <= began < times[at + 1]:
            following = PHASES[at + 1][0] if at + 1 < len(PHASES) else None
            caught = name not in FAULTS and following in FAULTS and ended >= times[at + 1]
            return following if caught else name
    return None


FAULTS = ("refuses", "hangs", "lost")

# The index in the list of times at which the fault of a phase ended.
ENDED_BY = {"refuses": 2, "hangs": 4, "lost": len(PHASES), "replaced": len(PHASES)}


def deviation(counts):
    """How far the node that is farthest from an even share is from it, as a part of that share."""
    even = sum(counts.values()) / len(counts)
    return max(abs(count - even) for count in counts.values()) / even if even else None


failed = False


def report(condition, sentence, detail):
    global failed
    failed |= not condition
    print(f"{'ok' if condition else 'not ok'} - {sentence}", flush=True)
    if not condition:
        print(detail, flush=True)


def judge(program, record):
    """What is promised. The rest is written down only."""
    for zone in record["zones"]:
        what = f"{program.name}, {SETTINGS} settings, answers = {zone['answers']}"
        total = sum(phase["operations"] for phase in zone["phases"].values())
        wrong = sum(phase["wrong"] for phase in zone["phases"].values())
        report(total > 0 and wrong == 0, f"{what}: no wrong result in {total} operations", zone)
        report(zone["phases"]["steady"]["failed"] == 0, f"{what}: no operation failed while all nodes answered", zone)
        if SETTINGS == "recommended":
            report(zone["phases"]["refuses"]["failed"] == 0, f"{what}: no operation failed while a node refused", zone)
            total = sum(zone["connections"].values())
            even = zone["deviation"]
            report(
                total >= CONNECTIONS and even is not None and even <= SPREAD,
                f"{what}: {total} new connections, each node within {SPREAD:.0%} of even: {even or 0:.1%}",
                zone["connections"],
            )


if __name__ == "__main__":
    ALTERNATOR_DNS, DIRECTORY, BUILT, SETTINGS = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    NAMES = sys.argv[5:]
    NETS = ["127.0.1", "127.0.2"]
    try:
        clusters = [
            Cluster(DIRECTORY, name, f"alternator.{name}.example.com", [f"{net}.{node}" for node in (1, 2, 3)], 4, answers)
            for name, net, answers in (("east", NETS[0], 1), ("west", NETS[1], "all"))
        ]
        main()
    except (Failure, OSError, subprocess.SubprocessError) as failure:
        show_logs(DIRECTORY)
        print(f"\nnot ok - {failure}", flush=True)
        failed = True
    finally:
        for child in CHILDREN:
            child.kill()
    sys.exit(1 if failed else 0)
