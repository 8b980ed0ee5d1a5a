"""Two clusters, the server, and programs that know DynamoDB only: nodes stop, start, crash and are replaced, and no
operation fails.

    run.py ALTERNATOR_DNS DIRECTORY

ALTERNATOR_DNS is the binary; DIRECTORY is for the configuration and the logs. Runs on a host of its own (see `host`).
Prints a line "ok - ..." for each check. The first check that fails ends the run; the logs are then shown.
"""

import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
README = HERE.parents[1] / "README.md"
sys.path.insert(0, str(HERE.parent / "python"))
sys.dont_write_bytecode = True
import wire
from harness import CHILDREN, PORT, Cluster, Failure, check, get, heading, show_logs, spawn, start_server, until

SAMPLE = 6_000  # Answers over which the spread is checked.
SHARE_OF_THREE = (0.30, 0.37)  # An even draw leaves it once in five thousand samples of 3,000, and in none of 6,000.
PHASE = 40  # Rounds of the programs between two changes: a node misses all of them once in ten million runs.


class Program:
    """A running program.py; its last line says how far it is."""

    def __init__(self, name, urls, **environment):
        self.name = name
        self.progress = {"rounds": 0, "operations": 0, "retries": 0}
        self.log = DIRECTORY / f"{name}.log"
        self.process = spawn(
            [sys.executable, HERE / "program.py", *urls],
            self.log,
            stdout=subprocess.PIPE,
            env={
                "AWS_ACCESS_KEY_ID": "alternator",
                "AWS_SECRET_ACCESS_KEY": "not-a-secret",
                "AWS_DEFAULT_REGION": "us-east-1",
                **environment,
            },
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.progress = json.loads(line)

    def finish(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        self.reader.join()


def rounds(programs, count):
    """Waits until every program has done that many more rounds, the ones under way not counted."""
    goals = [program.progress["rounds"] + count + 1 for program in programs]

    def reached():
        for program in programs:
            if program.process.poll() is not None:
                raise Failure(f"the program {program.name} ended:\n{program.log.read_text()}")
        return all(program.progress["rounds"] >= goal for program, goal in zip(programs, goals))

    until(reached, 120, f"{count} rounds of every program")


# --- Asking ------------------------------------------------------------------------------------------------------


def answers_over_udp(cluster, count):
    """The addresses in each of `count` answers, asked over one socket, a few at a time."""
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect(("127.0.0.1", 53))
        asker.settimeout(5)
        while len(found) < count:
            batch = min(20, count - len(found))
            for _ in range(batch):
                asker.send(question(cluster))
            found += [addresses_in(asker.recv(4096), cluster) for _ in range(batch)]
    return found


def answers_over_tcp(cluster, count):
    """The same over TCP, a hundred to a connection, pipelined."""
    found = []
    while len(found) < count:
        batch = min(100, count - len(found))
        with socket.create_connection(("127.0.0.1", 53), timeout=5) as asker, asker.makefile("rb") as replies:
            asker.sendall(b"".join(struct.pack(">H", len(q)) + q for q in (question(cluster) for _ in range(batch))))
            for _ in range(batch):
                (length,) = struct.unpack(">H", replies.read(2))
                found.append(addresses_in(replies.read(length), cluster))
    return found


def question(cluster):
    return random.randbytes(2) + wire.query(cluster.zone, "A", flags=wire.RD)[2:]


def addresses_in(octets, cluster):
    reply = wire.read(octets)
    addresses = reply.data("A")
    if reply.rcode != "NOERROR" or len(addresses) != cluster.answers:
        raise Failure(f"expected {cluster.answers} addresses, got this reply:\n{wire.words(reply)}")
    return addresses


def answered(cluster):
    """The nodes that a hundred answers name. One of four nodes is missed once in a million million times."""
    return {address for addresses in answers_over_udp(cluster, 100) for address in addresses}


def dig(*arguments):
    """What dig prints, asked through /etc/resolv.conf as a person would: rcode, flags, and the records by section."""
    text = subprocess.run(["dig", *arguments], check=True, capture_output=True, text=True, timeout=20).stdout
    section, records = None, {"ANSWER": [], "AUTHORITY": []}
    for line in text.splitlines():
        if heading := re.match(r";; (\w+) SECTION:", line):
            section = heading[1]
        elif line and not line.startswith(";"):
            records.setdefault(section, []).append(line.split())
    return {
        "rcode": re.search(r"status: (\w+)", text)[1],
        "flags": re.search(r";; flags: ([\w ]*);", text)[1].split(),
        "records": records,
        "text": text,
    }


def all_answered(cluster):
    """Whether all live nodes are answered. Right after a start only one may be verified, which is fewer than asked for."""
    try:
        return answered(cluster) == cluster.live
    except Failure:
        return False


# --- The steps ---------------------------------------------------------------------------------------------------


def main():
    heading("Two clusters of three nodes each, and the server")
    addresses = [[f"127.0.{cluster}.{node}" for node in (1, 2, 3)] for cluster in (1, 2)]
    east = Cluster(DIRECTORY, "east", "alternator.east.example.com", addresses[0], ttl=1, answers=1)
    west = Cluster(DIRECTORY, "west", "alternator.west.example.com", addresses[1], ttl=3, answers=2)
    clusters = [east, west]
    server = serve(clusters)

    heading("dig")
    for cluster in clusters:
        ask_with_dig(cluster)

    heading(f"The spread over {SAMPLE:,} answers, of which a client uses the first address")
    for cluster in clusters:
        judge_spread(cluster, "UDP", answers_over_udp)
        judge_spread(cluster, "TCP", answers_over_tcp)

    heading("Programs")
    for cluster in clusters:
        looked_up = subprocess.run(["getent", "ahostsv4", cluster.zone], capture_output=True, text=True).stdout
        check(set(looked_up.split()) & cluster.live, f"the C library finds a node of {cluster.name}", looked_up)
    run_the_program_of_the_readme()
    urls = [cluster.url for cluster in clusters]
    programs = [
        Program("program", urls),
        # Some hosts ask all their questions over TCP.
        Program("program-over-tcp", urls, RES_OPTIONS="use-vc"),
    ]
    rounds(programs, PHASE)
    for cluster in clusters:
        every_node_works(cluster)
    check('transport="tcp"' in get("/metrics"), "/metrics counts the questions over TCP", get("/metrics"))

    heading("A planned stop, and the node comes back")
    retire(east, "127.0.1.3", programs)
    rounds(programs, PHASE)
    join(east, "127.0.1.3", programs)
    no_retry(programs)

    heading("A node is replaced by another one; it was a seed")
    join(east, "127.0.1.4", programs)
    retire(east, "127.0.1.1", programs)
    rounds(programs, PHASE)
    no_retry(programs)

    heading("All nodes of a cluster are replaced, one by one, until no seed is left")
    for old, new in (("127.0.2.1", "127.0.2.4"), ("127.0.2.2", "127.0.2.5"), ("127.0.2.3", "127.0.2.6")):
        join(west, new, programs)
        retire(west, old, programs)
    rounds(programs, PHASE)
    no_retry(programs)

    # boto3 tries four times within a tenth of a second. With one address an answer, and one of three nodes dead, all
    # four hit the dead one once in eighty times; with two, one of them always is alive, and it goes on to that.
    heading("A crash: the port is closed, and for a while the others still list the node")
    west.stop("127.0.2.5")
    took = until(lambda: "127.0.2.5" not in answered(west), 10, "the crashed node leaves the answers")
    check(True, f"127.0.2.5 crashed; {took:.2f} s later it was in no answer, though the others went on listing it")
    rounds(programs, PHASE)
    west.leave("127.0.2.5")
    join(west, "127.0.2.5", programs)

    heading("The end")
    for cluster in clusters:
        reported = {zone["name"]: zone for zone in json.loads(get("/api/zones"))["zones"]}[cluster.zone + "."]
        nodes = {node["address"] for node in reported["nodes"] if node["state"] == "up"}
        check((reported["state"], nodes) == ("live", cluster.live), f"/api/zones shows {cluster.name} live, with its"
              f" {len(cluster.live)} nodes up", reported)
    for program in programs:
        program.finish()
        check(program.process.returncode == 0, "{name}: {operations} operations in {rounds} rounds, all of them right, "
              "{retries} retries, none before the crash".format(name=program.name, **program.progress),
              program.log.read_text())
    print_requests(clusters)
    server.send_signal(signal.SIGTERM)
    try:
        status = server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        status = "none within five seconds"
    check(status == 0, "on SIGTERM the server ends with status 0", f"status: {status}")


def serve(clusters):
    zones = "\n".join(
        f'[zones."{cluster.zone}"]\nseeds = {json.dumps(sorted(cluster.live)[:2])}\nttl = "{cluster.ttl}s"\n'
        f"answers = {cluster.answers}\n"
        for cluster in clusters
    )
    server = start_server(ALTERNATOR_DNS, DIRECTORY, f"""\
[server]
listen = ["127.0.0.1:53"]
admin = "127.0.0.1:9153"

[defaults]
port = {PORT}
refresh = "200ms"
timeout = "500ms"

{zones}""")
    for cluster in clusters:
        until(lambda: all_answered(cluster), 10, f"{cluster.name} answers with its three nodes")
        check(True, f"{cluster.zone} answers with its three nodes, two of which are seeds")
    return server


def ask_with_dig(cluster):
    for transport in ("+notcp", "+tcp"):
        reply = dig(transport, cluster.zone, "A")
        answer = reply["records"]["ANSWER"]
        check(
            reply["rcode"] == "NOERROR" and "aa" in reply["flags"] and "ra" not in reply["flags"]
            and all(record[:4] == [f"{cluster.zone}.", str(cluster.ttl), "IN", "A"] for record in answer)
            and len({record[4] for record in answer} & cluster.live) == len(answer) == cluster.answers,
            f"dig {transport} {cluster.zone}: {cluster.answers} of the live nodes, TTL {cluster.ttl}",
            reply["text"],
        )
    reply = dig(cluster.zone, "AAAA")
    check(
        reply["rcode"] == "NOERROR" and not reply["records"]["ANSWER"]
        and [record[3] for record in reply["records"]["AUTHORITY"]] == ["SOA"],
        f"dig {cluster.zone} AAAA: no address, but no error",
        reply["text"],
    )
    reply = dig("elsewhere." + cluster.zone, "A")
    check(reply["rcode"] == "NXDOMAIN", f"dig elsewhere.{cluster.zone}: no such name", reply["text"])
    above = cluster.zone.partition(".")[2]
    reply = dig(above, "A")
    check(reply["rcode"] == "REFUSED", f"dig {above}: refused", reply["text"])


def judge_spread(cluster, transport, ask):
    counted = Counter(addresses[0] for addresses in ask(cluster, SAMPLE))
    shares = {node: count / SAMPLE for node, count in sorted(counted.items())}
    least, most = SHARE_OF_THREE
    check(
        shares.keys() == cluster.live and all(least <= share <= most for share in shares.values()),
        f"{cluster.name} over {transport}: " + ", ".join(f"{node} {share:.1%}" for node, share in shares.items()),
        f"each of {sorted(cluster.live)} has to have {least:.0%} to {most:.0%}: {dict(counted)}",
    )


def run_the_program_of_the_readme():
    """As it stands there, with the zone east and the port of these clusters."""
    program = README.read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    check((done.returncode, done.stdout) == (0, "[]\n"), "the program of the README lists the tables: none yet", done.stderr)


def every_node_works(cluster):
    for address in sorted(cluster.live):
        had = cluster.requests(address)
        check(had > 0, f"{address} of {cluster.name} has had {had} requests")


def retire(cluster, address, programs):
    """A planned stop: the node leaves the list, then the answers, and once it is unused it closes."""
    cluster.leave(address)
    took = until(lambda: address not in answered(cluster), 10, f"{address} leaves the answers")
    rounds(programs, 0)  # The rounds under way may still use it.
    before = cluster.requests(address)
    rounds(programs, PHASE // 2)
    after = cluster.requests(address)
    check(before == after, f"{address} left the list; {took:.2f} s later it was in no answer, and had no request more",
          f"it had {before} requests then, and {after} after {PHASE // 2} rounds")
    cluster.stop(address)


def join(cluster, address, programs):
    before = cluster.requests(address)
    cluster.start(address)
    took = until(lambda: address in answered(cluster), 10, f"{address} joins the answers")
    rounds(programs, PHASE)
    had = cluster.requests(address) - before
    check(had > 0, f"{address} joined the list; {took:.2f} s later it was answered, and has had {had} requests since")


def no_retry(programs):
    retries = {program.name: program.progress["retries"] for program in programs}
    check(not any(retries.values()), "no operation failed, and none had to be tried again", retries)


def print_requests(clusters):
    heading("Requests per node")
    print(f"{'cluster':<9}{'node':<13}{'requests':>9}{'polls':>8}   state at the end")
    for cluster in clusters:
        for address, counts in sorted(cluster.order("counts").items()):
            state = "live" if address in cluster.live else "stopped"
            print(f"{cluster.name:<9}{address:<13}{counts['requests']:>9}{counts['polls']:>8}   {state}")
        every_node_works(cluster)


if __name__ == "__main__":
    ALTERNATOR_DNS, DIRECTORY = sys.argv[1], Path(sys.argv[2])
    try:
        main()
    except (Failure, OSError, subprocess.SubprocessError, wire.Malformed) as failure:
        show_logs(DIRECTORY)
        print(f"\nnot ok - {failure}", flush=True)
        sys.exit(1)
    finally:
        for child in CHILDREN:
            child.kill()
