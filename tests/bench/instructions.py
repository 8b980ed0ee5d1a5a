"""How many instructions an answer takes outside of the kernel: the same number on a busy machine and on a quiet one.

A server runs under callgrind, which counts from when it is ready to when it ends, once for N questions and once for
2 N; the difference is what N questions take. They come in two ways: one at a time, and 32 at once, which a server finds
waiting because it was stopped meanwhile. What threads do that wait for time to pass differs a little each time; it is
some two percent of ours.

callgrind counts an instruction that fills memory once for each octet that it fills. gdnsd clears 32 kB with one such
instruction for each question, hence the column without memset.
"""

import os
import re
import signal
import socket
import subprocess
import time
from collections import Counter

import servers
from processes import Failure
from queries import question
from servers import ECHO, ECHO_AGAIN, OURS, PORTS, Setting, zone_name

QUERIES, QUERIES_QUICK = 6400, 640
BURST = 32
WARM_UP = 64
PATIENCE = 30.0
FUNCTIONS_SHOWN = 20
ZONES = (1, 10_000)
KINDS = {
    "hit": "A, one of nine nodes",
    "nodata": "AAAA, no data",
    "https": "HTTPS, no data",
    "nxdomain": "no such name",
    "soa": "SOA",
    "ns": "NS",
    "view": "A, one of nine nodes of a view",
}
"""What `replies` can be asked for."""
KINDS_QUICK = ("hit", "nodata")
TOTALS = re.compile(r"^(?:totals|summary): (\d+)", re.MULTILINE)
ROW = re.compile(r"^\s*([\d,]+) \([ \d.]+%\)\s+(.*?)(?: \[[^\]]*\])?$", re.MULTILINE)
"""A row of callgrind_annotate: the number, then file and function, then the object in brackets."""


def table(programs, directory, queries, quick=False):
    names = [OURS, ECHO] if quick else [name for name in servers.STARTERS if name != ECHO_AGAIN]
    ways = [BURST] if quick else [1, BURST]
    lines = ["Instructions an answer outside of the kernel (callgrind), for 1 zone:", ""]
    lines += ["| server |" + "".join(f" {way} at once | without memset |" for way in ways)]
    lines += ["|---|" + "--:|--:|" * len(ways)]
    ours = Counter()
    for name in names:
        cells = ""
        for way in ways:
            counted = count(name, programs, directory, queries, way)
            memset = sum(number for function, number in counted.items() if "memset" in function)
            cells += f" {sum(counted.values()):,.0f} | {sum(counted.values()) - memset:,.0f} |"
            if name == OURS:
                ours = counted
        lines.append(f"| {name} |{cells}")
    lines += ["", f"{OURS}, {BURST} at once, by function with what is inlined there:", ""]
    lines += ["| instructions an answer | function |", "|--:|---|"]
    lines += [f"| {number:,.1f} | `{function}` |" for function, number in ours.most_common(FUNCTIONS_SHOWN)]
    return "\n".join(lines)


def count(name, programs, directory, queries, burst):
    """Instructions for each of so many questions, by function."""
    once, twice = (
        counted(name, programs, directory / f"{name}-{burst}-{times}", times * queries, burst) for times in (1, 2)
    )
    return Counter({function: (twice[function] - once[function]) / queries for function in twice})


def counted(name, programs, directory, queries, burst):
    """All instructions from the time that the server is ready, by function."""
    directory.mkdir(parents=True)
    callgrind = ["valgrind", "--tool=callgrind", "--trace-children=yes", "--instr-atstart=no"]
    callgrind += [f"--callgrind-out-file={directory}/callgrind.%p", "-q"]
    server = servers.start(name, programs, directory, Setting(), callgrind)
    try:
        pids = server.pids()
        ask_all(PORTS[name], pids, WARM_UP, burst)
        for pid in pids:
            subprocess.run(["callgrind_control", "--instr=on", str(pid)], capture_output=True)
        ask_all(PORTS[name], pids, queries, burst)
    finally:
        server.stop()
    return sum((functions(file) for file in directory.glob("callgrind.*")), Counter())


def functions(file):
    """What one process counted, by function."""
    command = ["callgrind_annotate", "--auto=no", "--threshold=100", str(file)]
    output = subprocess.run(command, capture_output=True, text=True).stdout
    counted = Counter()
    for number, place in ROW.findall(output):
        if place != "PROGRAM TOTALS":
            counted[place.split(":", 1)[-1]] += int(number.replace(",", ""))
    return counted


# --- Replies without a socket ---------------------------------------------------------------------------------------


def replies(programs, directory, count, quick=False):
    """Instructions of our server's answers by kind, from the message to the reply, without a socket."""
    directory.mkdir(parents=True)
    sizes, kinds = (ZONES[:1], KINDS_QUICK) if quick else (ZONES, KINDS)
    lines = ["Instructions of an answer of ours, from message to reply (callgrind):", ""]
    lines += ["| question |" + "".join(f" {zones:,} zones |" for zones in sizes), "|---|" + "--:|" * len(sizes)]
    for kind in kinds:
        cells = (f" {replied(programs, directory, kind, zones, count):,.0f} |" for zones in sizes)
        lines.append(f"| {KINDS[kind]} |" + "".join(cells))
    return "\n".join(lines)


def replied(programs, directory, kind, zones, count):
    """The difference between so many answers and twice as many, so that the start is not counted."""
    # Of every zone as many, so that all of them are known to the worker before the second half.
    first = max(count, zones)
    once, twice = (
        total(programs, directory / f"{kind}-{zones}-{times}", kind, zones, times * first) for times in (1, 2)
    )
    return (twice - once) / first


def total(programs, file, kind, zones, count):
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={file}", "-q", programs.replies]
    subprocess.run([*command, kind, str(zones), str(count)], check=True, stdout=subprocess.DEVNULL)
    return int(TOTALS.search(file.read_text())[1])


# --- Asking --------------------------------------------------------------------------------------------------------


def ask_all(port, pids, queries, burst):
    """Asks so many questions, a burst at a time, the next when all are answered."""
    message = question(zone_name(0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.settimeout(PATIENCE)
        asker.connect(("127.0.0.1", port))
        for _ in range(0, queries, burst):
            if burst > 1:
                stop(pids)
            for _ in range(burst):
                asker.send(message)
            for pid in pids if burst > 1 else ():
                os.kill(pid, signal.SIGCONT)
            for _ in range(burst):
                asker.recv(4096)


def stop(pids):
    """Stops the processes and waits until they are."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE
    for pid in pids:
        while state(pid) not in "TtZ":
            if time.monotonic() > deadline:
                raise Failure(f"process {pid} does not stop")


def state(pid):
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
