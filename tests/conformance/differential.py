"""The same questions to us, NSD and Knot: where replies differ, a sentence has to say why."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from queries import Malformed, Silence
from report import table
from servers import KNOT, NSD, OURS
from wire import (
    AA,
    AD,
    CD,
    COOKIE,
    DO,
    ECS,
    KEEPALIVE,
    NSID,
    PADDING,
    RA,
    RD,
    TC,
    Z,
    message,
    name,
    opt,
    option,
    query,
    question,
    record,
)

# --- Questions ----------------------------------------------------------------------------------------------------

NAMES = [
    "c1.alt.test",
    "C1.aLT.tEsT",
    "x.c1.alt.test",
    "y.x.c1.alt.test",
    "ns1.c1.alt.test",
    "x.ns1.c1.alt.test",
    "*.c1.alt.test",
    "v6.alt.test",
    "nest.alt.test",
    "b.nest.alt.test",
    "a.b.nest.alt.test",
    "x.b.nest.alt.test",
    "x.a.b.nest.alt.test",
    "sub.alt.test",
    "x.sub.alt.test",
    "Y.x.SUB.alt.test",
    "*.sub.alt.test",
    "denied.alt.test",
    "alternator.alt.test",
    "x.alternator.alt.test",
    "east.alternator.alt.test",
    "one.east.alternator.alt.test",
    "alt.test",
    "test",
    ".",
    "c1.alt.test.example",
    "xc1.alt.test",
]
TYPES_ASKED = [
    "A",
    "AAAA",
    "NS",
    "SOA",
    "CNAME",
    "MX",
    "TXT",
    "PTR",
    "SRV",
    "HTTPS",
    "SVCB",
    "CAA",
    "DS",
    "DNSKEY",
    "NSEC",
    "RRSIG",
    "ANY",
    "TYPE1000",
    "TYPE65535",
]
EDNS = {
    "EDNS 1232": opt(),
    "EDNS 4096": opt(size=4096),
    "EDNS 512": opt(size=512),
    "EDNS 0": opt(size=0),
    "DO": opt(flags=DO),
    "v1": opt(version=1),
    "v255 DO": opt(version=255, flags=DO),
    "unknown flags": opt(flags=0x7FFF),
    "unknown option": opt(option(65001, b"x")),
    "two unknown options": opt(option(65001, b"x"), option(65002)),
    "NSID": opt(option(NSID)),
    "ECS": opt(option(ECS, bytes.fromhex("00011800c00002"))),
    "padding": opt(option(PADDING, bytes(8))),
    "keepalive": opt(option(KEEPALIVE)),
    "cookie": opt(option(COOKIE, bytes(range(8)))),
    "short cookie": opt(option(COOKIE, bytes(7))),
    "option overruns": opt(data=b"\xfd\xe9\0\x09x"),
    "OPT of a name": opt(owner=name("x")),
}
CHAOS = ["version.bind", "version.server", "id.server", "hostname.bind", "Version.Bind", "authors.bind", "bind"]
FLAGS = {
    "RD": RD,
    "CD": CD,
    "AD": AD,
    "Z": Z,
    "TC": TC,
    "AA": AA,
    "RA": RA,
    "all flags": RD | CD | AD | Z | TC | AA | RA,
}
SOME = [
    ("c1.alt.test", "A"),
    ("x.c1.alt.test", "A"),
    ("c1.alt.test", "AAAA"),
    ("alt.test", "A"),
    ("sub.alt.test", "SOA"),
]
"""An answer, no such name, no such data, no such zone, an SOA."""


@dataclass(frozen=True)
class Asked:
    qname: str
    qtype: str
    qclass: str = "IN"
    edns: str = ""
    flags: str = ""
    form: str = ""
    transport: str = "udp"

    def message(self):
        if self.form:
            return FORMS[self.form]
        return query(self.qname, self.qtype, self.qclass, flags=FLAGS.get(self.flags, 0), edns=EDNS.get(self.edns))

    def __str__(self):
        words = [
            self.form or f"{self.qname} {self.qtype}",
            self.qclass if self.qclass != "IN" else "",
            self.edns,
            self.flags,
        ]
        return " ".join([word for word in words if word] + (["TCP"] if self.transport == "tcp" else []))


C1 = question("c1.alt.test")
FORMS = {
    "a header alone": message(),
    "an OPT alone": message(additional=[opt()]),
    "two questions": message(C1, question("v6.alt.test")),
    "two OPT": message(C1, additional=[opt(), opt()]),
    "OPT in the answer": message(C1, answer=[opt()]),
    "a record in the answer": message(C1, answer=[record("x", "A", "IN", 0, bytes(4))]),
    "a record in the authority section": message(C1, authority=[record("x", "A", "IN", 0, bytes(4))]),
    "a record in the additional section": message(C1, additional=[record("x", "A", "IN", 0, bytes(4))]),
    "octets behind the end": message(C1, trailing=bytes(7)),
    "a record too few": message(C1, counts=(1, 0, 0, 1)),
    "a pointer as name": message(question(b"\xc0\x0c")),
    "a cut name": message(C1)[:18],
    "a digit with another case bit": message(question(b"\x02c\x11" + name("alt.test"))),
    "a label with a dot and a zero": message(question(b"\x03.\0x" + name("c1.alt.test"))),
    "a label with a bracket": message(question(b"\x01[" + name("SUB.alt.test"))),
    "a name of 256 octets": message(question(".".join(["x" * 63] * 3 + ["x" * 50, "c1.alt.test"]))),
    **{f"opcode {opcode}": message(C1, opcode=opcode) for opcode in range(1, 16)},
    **{f"opcode {opcode}, a header alone": message(opcode=opcode) for opcode in (1, 2, 4, 5, 6, 15)},
}


def questions():
    everything = [Asked(qname, qtype) for qname in NAMES for qtype in TYPES_ASKED]
    everything += [Asked(qname, qtype, edns="DO") for qname in NAMES for qtype in ("A", "SOA", "DS", "ANY")]
    everything += [Asked(*some, edns=edns) for some in SOME for edns in EDNS]
    everything += [Asked(*some, flags=flags) for some in SOME for flags in FLAGS]
    everything += [
        Asked(*some, qclass=qclass) for some in SOME for qclass in ("CH", "HS", "NONE", "ANY", "CLASS0", "CLASS1000")
    ]
    everything += [Asked("c1.alt.test", "A", qclass="CH", edns="EDNS 1232")]
    everything += [Asked(chaos, qtype, qclass="CH") for chaos in CHAOS for qtype in ("TXT", "A", "ANY")]
    everything += [Asked(*some, transport="tcp") for some in SOME] + [Asked("all.alt.test", "A", transport="tcp")]
    everything += [
        Asked("all.alt.test", qtype, edns=edns) for qtype in ("A", "ANY") for edns in ("", "EDNS 4096", "EDNS 0")
    ]
    everything += [
        Asked("c1.alt.test", "AXFR", transport="tcp"),
        Asked("c1.alt.test", "IXFR"),
        Asked("c1.alt.test", "TYPE0"),
    ]
    everything += [Asked("c1.alt.test", "", form=form) for form in FORMS]
    return everything


# --- What is compared ---------------------------------------------------------------------------------------------


def features(reply):
    """A reply, field by field. The serial of an SOA is each server's own, and so is the order of records."""
    if reply is None:
        return {"reply": "none"}
    content = {"reply": "one", "rcode": reply.rcode, "opcode": reply.opcode, "questions": tuple(reply.questions)}
    for word, bit in (("aa", AA), ("tc", TC), ("rd", RD), ("ra", RA), ("z", Z), ("ad", AD), ("cd", CD)):
        content[word] = int(reply.has(bit))
    for section in ("answer", "authority", "additional"):
        content[section] = tuple(sorted(map(comparable, getattr(reply, section))))
    opt = reply.opt
    content["opt"] = "none" if opt is None else (opt.version, opt.size, f"flags {opt.flags:#06x}")
    content["options"] = tuple(sorted(code for code, _ in reply.opt.options)) if reply.opt else ()
    return content


def comparable(record):
    data = record.data
    if record.type == "SOA":
        fields = data.split()
        data = " ".join([*fields[:2], "serial", *fields[3:]])
    return (record.owner, record.type, record.rclass, record.ttl, data)


def pair(ours, theirs):
    """Two values of a field for the table, in short form if the short forms differ."""
    if short(ours) != short(theirs):
        return short(ours), short(theirs)
    return tuple("; ".join(" ".join(map(str, record)) for record in value) for value in (ours, theirs))


def short(value):
    """A field's value for the table."""
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return ", ".join(f"{count} {rtype}" for rtype, count in Counter(record[1] for record in value).items())
    if isinstance(value, tuple) and value and isinstance(value[0], bytes):
        return f"{len(value)} questions" if len(value) > 1 else "echoed"
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return str(value)


# --- What may differ ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Expected:
    """A class of differences, and the sentence that decides for us."""

    title: str
    peers: tuple
    fields: tuple
    """The fields that may differ; none means the whole reply."""
    applies: object
    """Takes what was asked, our features and theirs."""
    reason: str


BOTH = (NSD, KNOT)
EXPECTED = []


def expected(title, reason, applies, *fields, peers=BOTH):
    EXPECTED.append(Expected(title, peers, fields, applies, reason))


def excuse(asked, peer, field, ours, theirs):
    for known in EXPECTED:
        if peer in known.peers and (not known.fields or field in known.fields) and known.applies(asked, ours, theirs):
            return known
    return None


def both(rcode):
    return lambda asked, ours, theirs: ours.get("rcode") == theirs.get("rcode") == rcode


def form(*forms):
    return lambda asked, ours, theirs: asked.form in forms


def opcode(asked, ours, theirs):
    return asked.form.startswith("opcode")


expected(
    "A truncated answer",
    "The addresses that fit are useful to a client that has no TCP; the others leave them out.",
    lambda asked, ours, theirs: ours["tc"] and theirs["tc"] and asked.qname == "all.alt.test",
    "answer",
)
expected(
    "ANY: which RRset it is",
    "RFC 8482, 4.1: a responder may give one RRset, of whichever type; ours are the addresses",
    lambda asked, ours, theirs: asked.qtype == "ANY",
    "answer",
    "tc",
    peers=(NSD,),
)
expected(
    "ANY at a name without addresses: which RRset it is",
    "RFC 8482, 4.1: a responder may give one RRset, of whichever type; ours is the SOA, as NSD's",
    lambda asked, ours, theirs: asked.qtype == "ANY" and short(ours["answer"]) == "1 SOA",
    "answer",
    "additional",
    peers=(KNOT,),
)
expected(
    "NS: the address of a name server that lies in another of our zones",
    "RFC 1034, 4.3.2, step 6: whatever local data is useful may be added",
    lambda asked, ours, theirs: asked.qtype == "NS" and theirs["additional"] == (),
    "additional",
)
expected(
    "BADVERS: DO",
    "RFC 3225, 3: the DO bit of the query is copied into the response",
    both("BADVERS"),
    "opt",
    peers=(NSD,),
)
expected(
    "a query with a client's cookie alone",
    "RFC 7873, 5.2.3: it may be processed as usual; BADCOOKIE is for a server under attack",
    lambda asked, ours, theirs: asked.edns == "cookie" and theirs["rcode"] == "BADCOOKIE",
    "rcode",
    "aa",
    "answer",
    "authority",
    "options",
    peers=(KNOT,),
)
expected(
    "FORMERR without the OPT, or without the question",
    "RFC 6891, 7: an OPT is answered with an OPT; RFC 5452, 9.1: a client knows its reply by the question",
    both("FORMERR"),
    "opt",
    "questions",
)
expected(
    "REFUSED without the question",
    "RFC 5452, 9.1: a client knows its reply by the question",
    both("REFUSED"),
    "questions",
    peers=(NSD,),
)
expected(
    "an OPT that a name owns",
    "RFC 6891, 6.1.2: its NAME MUST be the root",
    lambda asked, ours, theirs: asked.edns == "OPT of a name",
    "rcode",
    "aa",
    "answer",
    "authority",
    "options",
    peers=(KNOT,),
)
expected(
    "class ANY",
    "RFC 1035, 4.1.1: REFUSED is for policy; for a zone with one class no client needs all",
    lambda asked, ours, theirs: asked.qclass == "ANY",
    "rcode",
    "aa",
    "answer",
    "authority",
)
expected(
    "class CH: an extended error",
    "RFC 8914, 1: extended errors are additional information, never demanded",
    lambda asked, ours, theirs: asked.qclass == "CH",
    "options",
    peers=(NSD,),
)
expected(
    "class CH: AA",
    "RFC 1035, 4.1.1: AA says that the server is an authority for the name; about itself it is one",
    lambda asked, ours, theirs: asked.qname.lower() in CHAOS and ours["answer"] != (),
    "aa",
)
expected(
    "class CH: ANY",
    "RFC 8482, 4.1: a responder may give one RRset, and here is one",
    lambda asked, ours, theirs: asked.qname.lower() in CHAOS and asked.qtype == "ANY",
    "answer",
    "rcode",
    peers=(KNOT,),
)
expected(
    "AXFR, IXFR",
    "RFC 5936, 2.2.1: an error tells that no transfer is given; NOTAUTH would deny that the zone is ours",
    lambda asked, ours, theirs: asked.qtype in ("AXFR", "IXFR"),
    "rcode",
    peers=(KNOT,),
)
expected(
    "TYPE0",
    "RFC 3597, 5: a type that is not known is a type without data",
    lambda asked, ours, theirs: asked.qtype == "TYPE0",
    "rcode",
    "aa",
    "authority",
    peers=(KNOT,),
)
expected(
    "no question, an OPT without a cookie",
    "RFC 7873, 5.4: without a question only a cookie is asked for",
    form("an OPT alone"),
    "rcode",
    peers=(NSD,),
)
expected(
    "no reply to what is ill-formed",
    "RFC 8906, 2: a client without a reply asks again and again; RFC 1035, 4.1.1: FORMERR",
    lambda asked, ours, theirs: ours.get("rcode") == "FORMERR" and theirs["reply"] == "none",
    "reply",
    peers=(KNOT,),
)
expected(
    "octets behind the end",
    "RFC 1035, 4.1: the counts say where a message ends",
    form("octets behind the end"),
    "rcode",
    "aa",
    "answer",
    peers=(KNOT,),
)
expected(
    "records where a query has none",
    "RFC 1035, 4.1.1: the counts allow them; they are skipped",
    form("a record in the answer", "a record in the authority section", "a record in the additional section"),
    "rcode",
    "aa",
    "answer",
    "questions",
    peers=(NSD,),
)
expected(
    "other opcodes: what the error is, and whether it has the question",
    "RFC 1035, 4.1.1: NOTIMP is what is not implemented; what follows the header is the opcode's own",
    opcode,
    "rcode",
    "questions",
)


# --- The run ------------------------------------------------------------------------------------------------------


def ask(server, asked):
    try:
        return features(server.udp(asked.message()) if asked.transport == "udp" else server.tcp(asked.message())[0])
    except (Malformed, Silence) as failure:
        return {"reply": f"{type(failure).__name__}: {failure}"}


def run(world, report):
    by_name = {server.name: server for server in world.servers}
    everything = list(dict.fromkeys(questions()))
    excused, unknown, same = defaultdict(list), defaultdict(list), Counter()
    for asked in everything:
        ours = ask(by_name[OURS], asked)
        for peer in BOTH:
            theirs = ask(by_name[peer], asked)
            fields = [field for field in ours.keys() | theirs.keys() if ours.get(field) != theirs.get(field)]
            if "reply" in fields:
                # Without a reply there is nothing else to compare.
                fields = ["reply"]
            same[peer] += not fields
            for field in sorted(fields):
                known = excuse(asked, peer, field, ours, theirs)
                kind = (peer, field, *pair(ours.get(field, ""), theirs.get(field, "")))
                (excused[known, peer] if known else unknown[kind]).append(asked)
    tell(report, everything, same, excused, unknown)


def tell(report, everything, same, excused, unknown):
    for peer in BOTH:
        kinds = [kind for kind in unknown if kind[0] == peer]
        problem = "; ".join(
            f"{field}: ours {ours}, theirs {theirs}, {len(unknown[kind])} times, as {unknown[kind][0]}"
            for kind in kinds
            for _, field, ours, theirs in [kind]
        )
        report.check(
            f"{len(everything)} questions to {peer} and us: {same[peer]} replies are alike, all"
            " other differences are expected",
            problem,
        )
    rows = []
    for known in EXPECTED:
        counts = [len(set(excused[known, peer])) for peer in BOTH]
        asked = next((asked for peer in BOTH for asked in excused[known, peer]), None)
        if asked:
            rows.append([known.title, *[count or "-" for count in counts], f"`{asked}`", known.reason])
    text = [
        f"{len(everything)} questions; alike in every field: {same[NSD]} replies of NSD, {same[KNOT]} of Knot. The"
        " serial of an SOA and the order of records are not compared. Every difference is of one of these classes:",
        table(["what differs", NSD, KNOT, "as in", "what decides for us"], rows),
    ]
    if unknown:
        rows = [[*kind, len(asked), f"`{asked[0]}`"] for kind, asked in unknown.items()]
        text += ["**Not expected:**", table(["server", "field", "ours", "theirs", "times", "as in"], rows)]
    report.section("Difference by difference", *text)
