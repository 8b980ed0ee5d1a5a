"""Queries each address of a server over UDP, and captures the packets: ask.py ADDRESS...

A connected socket accepts replies from its peer only, so a reply that arrives was sent from the address that was asked.
"""

import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
sys.dont_write_bytecode = True
from wire import TC, opt, query, read

PATIENCE_S = 20.0
# Octets of at least sixty records: a reply close to the largest.
LARGE = 1100
ETH_P_ALL, IPV4, IPV6, UDP, FRAGMENT = 3, 0x0800, 0x86DD, 17, 44


def main(servers):
    # Many small replies come before the nodes are known; they would fill the buffer of the raw socket below.
    for qtype in ("A", "AAAA"):
        ask(servers[0], qtype)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    wire.setblocking(False)
    for server in servers:
        for qtype in ("A", "AAAA"):
            reply = ask(server, qtype)
            check(reply is not None and len(reply) > LARGE, f"{server} replies from itself: {len(reply or b'')} octets of {qtype}")
            check(reply is not None and not read(reply).has(TC), f"{server}'s reply is not truncated")
    frames = list(received(wire))
    v4 = [frame for kind, frame in frames if kind == IPV4 and frame[9] == UDP]
    v6 = [frame for kind, frame in frames if kind == IPV6 and frame[6] in (UDP, FRAGMENT)]
    check(len(v4) >= 4 and all(frame[6] & 0x40 for frame in v4), f"{len(v4)} IPv4 replies have DF set")
    check(all(not frame[6] & 0x3F and not frame[7] for frame in v4), "no IPv4 reply is a fragment")
    check(len(v6) >= 4 and all(frame[6] == UDP for frame in v6), f"{len(v6)} IPv6 replies are no fragments")


def ask(server, qtype):
    """The reply with the nodes, once there is one: before the first poll, the answer is the seed."""
    question = query("many.example", qtype, edns=opt(size=1232))
    end = time.monotonic() + PATIENCE_S
    reply = None
    while time.monotonic() < end and (reply is None or len(reply) < LARGE):
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.2)
            client.connect((server, 53))
            try:
                client.send(question)
                reply = client.recv(65535)
            except OSError:
                time.sleep(0.05)
    return reply


def received(wire):
    """The packets from the other host, each with its protocol and without its Ethernet header."""
    while True:
        try:
            frame, (_, protocol, direction, *_) = wire.recvfrom(65535)
        except BlockingIOError:
            return
        if direction != socket.PACKET_OUTGOING:
            yield protocol, frame[14:]


def check(holds, sentence):
    print(("ok - " if holds else "not ok - ") + sentence, flush=True)


main(sys.argv[1:])
