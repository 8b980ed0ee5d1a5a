"""Prints RESULTS.md, from the figures that run.py has left.

    results.py BUILT
"""

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILT = Path(sys.argv[1])

HEAD = """\
# What SDKs do when nodes fail

Written by `results.py` from the figures of `run.py`, as in `RELEASE=yes tests/parts/sdks`; [README.md](README.md) says what is
done. Measured on {date}, {cores} cores, {system}, load average {load}: the longest operation while all was well shows how much
of a stall may be the machine's.

In the columns *all well*, *refuses*, *hangs* and *lost* stands how many operations failed (after the SDK's own attempts),
of how many, and how long the longest one took. A **+** says that it ended only because the test ended the fault.
*Spread*: how far from an even share of new connections the node farthest from it is, and how many connections were counted:
about 3,000, less where a slow client on a busy machine made fewer. *Returned*: the share of requests that the node that had
refused has from five to ten seconds after it returned. 0 % is usual: a program has few connections, and they stay where they are.
"""

CLIENTS = {
    "boto3": "boto3",
    "javascript": "AWS SDK for JavaScript 3",
    "go": "AWS SDK for Go 2",
    "rust": "AWS SDK for Rust",
    "java-url": "AWS SDK for Java 2, URL connection",
    "java-apache": "AWS SDK for Java 2, Apache 5",
    "java-crt": "AWS SDK for Java 2, CRT",
    "scylla-python": "ScyllaDB's client for Python",
    "scylla-rust": "ScyllaDB's client for Rust",
}
COLUMNS = {"all well": ["steady", "returned", "resumed"], "refuses": ["refuses"], "hangs": ["hangs"], "lost": ["lost", "replaced"]}


def main():
    records = [json.loads(line) for line in open(BUILT / "figures.jsonl")]
    print(HEAD.format(
        date=time.strftime("%Y-%m-%d"),
        cores=os.cpu_count(),
        system=f"{platform.system()} {platform.machine()}",
        load=f"{os.getloadavg()[2]:.0f}",
    ))
    for zone, title in enumerate(("answers = 1 (the default)", 'answers = "all"')):
        print(f"## {title}\n")
        print("| client | settings | " + " | ".join(COLUMNS) + " | spread | returned |")
        print("|---|---|" + "---|" * (len(COLUMNS) + 2))
        for name in CLIENTS:
            for record in sorted(records, key=lambda record: record["settings"]):
                if record["program"] == name:
                    print(row(record, record["zones"][zone]))
        print()
    print("## Versions\n")
    for what, version in versions().items():
        print(f"- {what} {version}")
    print("\nNot run: ScyllaDB's client libraries for Go and Java. The package registries that this machine reaches did not serve")
    print("`github.com/scylladb/alternator-client-golang` and `com.scylladb.alternator:load-balancing`.")


def row(record, zone):
    cells = [CLIENTS[record["program"]], record["settings"]]
    for names in COLUMNS.values():
        of_column = [zone["phases"][name] for name in names]
        longest = max(of_column, key=lambda phase: phase["longest"] or 0)
        failed = sum(phase["failed"] for phase in of_column)
        done = sum(phase["operations"] for phase in of_column)
        failed = f"**{failed}**" if failed else "0"
        cells.append(f"{failed} of {done}, {longest['longest'] or 0:.1f}{'+' if longest['until_end'] else ''} s")
    total = sum(zone["connections"].values())
    cells.append("–" if zone["deviation"] is None else f"{zone['deviation']:.1%} of {total:,}")
    cells.append("–" if zone["share_of_returned"] is None else f"{zone['share_of_returned']:.0%}")
    return "| " + " | ".join(cells) + " |"


def versions():
    real_clients = HERE.parent / "real_clients" / "requirements.txt"
    lock = HERE / "rust" / "Cargo.lock"
    return {
        "boto3": found(real_clients, r"boto3==(\S+)"),
        "AWS SDK for JavaScript": found(HERE / "javascript" / "package.json", r'client-dynamodb": "(.*)"'),
        "AWS SDK for Go": found(HERE / "go" / "go.mod", r"service/dynamodb v(\S+)") + " (dynamodb)",
        "AWS SDK for Java": found(HERE / "java" / "pom.xml", r"<artifactId>bom</artifactId>\s*<version>(.*)</version>"),
        "AWS SDK for Rust": found(lock, r'name = "aws-sdk-dynamodb"\nversion = "(.*)"') + " (dynamodb)",
        "ScyllaDB's client for Python": found(HERE / "python" / "requirements.txt", r"alternator-client==(\S+)"),
        "ScyllaDB's client for Rust": found(lock, r'name = "alternator-client"\nversion = "(.*)"'),
        "moto": found(real_clients, r"moto\S*==(\S+)"),
        "Python": platform.python_version(),
        "Node.js": said("node", "--version"),
        "Go": said("go", "version"),
        "Java": said("java", "--version"),
    }


def found(file, pattern):
    return re.search(pattern, file.read_text())[1]


def said(*command):
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return re.search(r"\d+(\.\d+)+", text)[0]


if __name__ == "__main__":
    main()
