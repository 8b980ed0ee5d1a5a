"""Tables of the results, and the statements of the README that they have to hold."""

import json
from statistics import mean

from network import PLACES
from resolvers import ADDRESSES, COUNTS, DIRECT
from shares import WINDOWS


class Report:
    def __init__(self, versions):
        self.versions = versions
        self.shares, self.deaths, self.noticed = {}, {}, {}
        self.failed = 0

    def check(self, sentence, holds):
        self.failed += not holds
        print(f"{'ok' if holds else 'not ok'} - {sentence}", flush=True)

    def add_shares(self, place, found, counted):
        self.shares[place.name] = found
        connections = sum(shares.connections for shares in found.values())
        failed = sum(shares.failed for shares in found.values())
        self.check(
            f"{place.description}: the nodes counted the {connections} connections of the clients ({counted.total()}), none"
            " failed",
            # Node gives up an attempt after 250 ms, which a node may have accepted by then.
            0 <= counted.total() - connections <= connections // 1000 and not failed,
        )

    def add_deaths(self, place, measured):
        self.deaths[place.name], self.noticed[place.name] = measured

    def check_statements(self):
        """What the README says. The bounds leave room for chance: a cell has 40 TTLs and 240 connections."""
        self.check(
            "with answers = 1, all connections through a cache reach one node within a TTL",
            all(cell.within_ttl > 0.95 for _, resolver, _, cell in self.cells(1) if resolver != DIRECT),
        )
        self.check(
            "with answers = 2, no node has half of the connections of one host, wherever it is and whatever it asks",
            all(cell.one_host < 0.50 for _, _, _, cell in self.cells(2)),
        )
        self.check(
            "with answers = 2, the connections through a cache that rotates are spread over two nodes within a TTL",
            all(
                mean([cell.within_ttl for of, name, _, cell in self.cells(2) if (of, name) == ("far4", resolver)]) < 0.75
                for resolver in CACHES
                if resolver != NOT_ROTATING and "far4" in self.shares
            ),
        )
        self.check(
            "with answers = 8, a host with glibc in the nodes' subnet connects nearly always to the closest node",
            all(
                cell.one_host > 0.80
                for place, _, client, cell in self.cells(8)
                if place.startswith("near") and client == "glibc"
            ),
        )
        if self.deaths:
            attempts = [
                attempt
                for found in self.deaths.values()
                for (_, _, _, count), attempts in found.items()
                if count > 1
                for attempt in attempts
            ]
            failed = sum(attempt.failed for attempt in attempts)
            sentence = f"with two addresses or more, {failed} of {len(attempts)} connections fail when a node dies"
            self.check(sentence, not failed)

    def cells(self, count):
        return [
            (place, resolver, client, cell)
            for place, found in self.shares.items()
            for (resolver, client, of), cell in found.items()
            if of == count
        ]

    def write(self, directory):
        (directory / "RESULTS.md").write_text(self.markdown())
        (directory / "results.json").write_text(self.json())

    def json(self):
        shares = {
            "|".join([place, *map(str, key)]): [cell.within_ttl, cell.one_host, cell.long_run, cell.connections]
            for place, found in self.shares.items()
            for key, cell in found.items()
        }
        deaths = {
            "|".join([place, *map(str, key)]): [[a.began, a.noticed, a.failed, a.connected.seconds] for a in attempts]
            for place, found in self.deaths.items()
            for key, attempts in found.items()
        }
        return json.dumps({"shares": shares, "deaths": deaths, "noticed": self.noticed})

    def markdown(self):
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        shares = [self.shares_of(place) for place in PLACES if place.name in self.shares]
        deaths = [self.deaths_in(place, mode) for place in PLACES if place.name in self.deaths for mode in MODES]
        parts = [HEAD, f"With {versions}.", SHARES, *shares]
        if deaths:
            parts += [DEATHS, *deaths]
        return "\n\n".join(parts) + "\n"

    def shares_of(self, place):
        found = self.shares[place.name]
        clients = list(dict.fromkeys(client for _, client, _ in found))
        rows = [
            [resolver, client, *[percentages(found[resolver, client, count]) for count in COUNTS]]
            for resolver in ADDRESSES
            for client in clients
        ]
        return f"### {place.description}\n\n" + table(["resolver", "client", *answers_are()], rows)

    def deaths_in(self, place, mode):
        found, noticed = self.deaths[place.name], self.noticed[place.name][mode]
        clients = list(dict.fromkeys(client for _, _, client, _ in found))
        rows = []
        for asked, resolvers in (("directly", [DIRECT]), ("through a cache", CACHES)):
            for client in clients:
                cells = []
                for count in COUNTS:
                    attempts = [attempt for name in resolvers for attempt in found[mode, name, client, count]]
                    cells += [outcome(attempts, after) for after in (False, True)]
                rows.append([asked, client, *cells])
        heads = [f"{what}, {when}" for what in answers_are() for when in ("before", "after")]
        sentence = f"This server noticed after {min(noticed):.1f} to {max(noticed):.1f} s."
        title = f"### {place.description}; the node {MODES[mode]}"
        return "\n\n".join([title, sentence, table(["asked", "client", *heads], rows)])


NOT_ROTATING = "CoreDNS without loadbalance"
CACHES = [name for name in ADDRESSES if name != DIRECT]
MODES = {"refuses": "refuses connections", "silent": "is silent"}
HEAD = """Made by `tests/full answers && cp target/full/answers/RESULTS.md tests/answers/`.

# Where connections go, and what they meet when a node dies"""
SHARES = f"""## The busiest node's share of first connections

A cluster of eight nodes; an even spread is 12 %. In percent: the share within one TTL, of connections of all hosts / the
share over many TTLs, of connections of one host / and of all hosts. Each cell: {WINDOWS} names, each of which stands for
one TTL, looked up once by each of six client addresses. The addresses of nodes and clients are spread over their
subnets, as in a cloud. With so few names, differences of 10 are chance. One half of the connections names the busiest
node and the other half its share, so what is more even than chance shows as less than 12 %."""
DEATHS = """## When a node dies

The percentage of connections that fail, `+` the percentage that succeed after more than a second; before this server has
noticed, and within ten seconds of the death after that. TTL 4 s. Five of the nodes die, one after the other. Clients try the addresses that
they have in their order: glibc, musl and Java for two seconds each, Go for four seconds in all; Node as it does by
itself, 250 ms each."""


def answers_are():
    return [f"`answers = {count}`" for count in COUNTS]


def percentages(cell):
    return " / ".join(f"{100 * share:.0f}" for share in (cell.within_ttl, cell.one_host, cell.long_run))


def outcome(attempts, noticed):
    attempts = [attempt for attempt in attempts if attempt.noticed == noticed]
    if not attempts:
        return "-"
    failed = sum(attempt.failed for attempt in attempts) / len(attempts)
    waited = sum(attempt.waited for attempt in attempts) / len(attempts)
    return f"{100 * failed:.0f} + {100 * waited:.0f}"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
