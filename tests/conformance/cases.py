"""One question, one reply: what every server is asked, and what ours has to do."""

import struct
from dataclasses import dataclass

import cookies
import wire
from checks import (
    NO_SUCH_NAME,
    NODATA,
    REFUSED,
    THREE,
    UDP_OCTETS,
    aa,
    among,
    answer,
    at_most,
    compressed,
    data,
    dropped,
    echoes,
    edns_flags,
    explained,
    first,
    has_opt,
    no_authority,
    no_options,
    no_question,
    not_aa,
    octets,
    problem_with,
    rcode,
    some_records,
    sound,
    tc,
    ttl,
    with_option,
    without_option,
)
from fixture import ZONES
from queries import CLIENT, Silence
from servers import IDENTITY, SECRET, VERSION
from wire import (
    AD,
    CD,
    COOKIE,
    DO,
    ECS,
    KEEPALIVE,
    NSID,
    PADDING,
    QR,
    RD,
    Malformed,
    Z,
    message,
    name,
    opt,
    option,
    query,
    question,
    record,
    words,
)

NODES = {zone.name: zone.nodes for zone in ZONES}
IDLE_TENTHS = 100
"""The default of `idle`, 10 s, as keepalive gives it."""
COOKIE_OF_CLIENT = bytes.fromhex("2464c4abcf10c957")
COMMON_QUERY = query("c1.alt.test")


@dataclass(frozen=True)
class Case:
    number: int
    question: str
    demand: str
    message: bytes
    checks: tuple
    transport: str = "udp"

    def ask(self, server):
        """A server's reply, in a few words, and what is wrong with it if it is ours."""
        try:
            reply = server.udp(self.message) if self.transport == "udp" else server.tcp(self.message)[0]
        except Silence as silence:
            return "no longer answers", str(silence)
        except Malformed as malformed:
            return "no DNS message", str(malformed)
        checks = self.checks if reply is None else (sound(self.message, self.transport), *self.checks)
        return words(reply), problem_with(reply, checks)


CASES = []


def ask(number, title, demand, asked, *checks, transport="udp"):
    CASES.append(Case(number, title, demand, asked, checks, transport))


# --- The common questions ---------------------------------------------------------------------------------------

ask(1, "A c1, no EDNS", "NOERROR aa, 3 A of TTL 5, no OPT, owners compressed",
    COMMON_QUERY, *THREE, data(NODES["c1.alt.test"]), compressed)
ask(2, "A c1, RD=1", "the same, rd=1 ra=0 (RFC 1035, 4.1.1)", query("c1.alt.test", flags=RD), *THREE)
ask(3, "AAAA c1", "NODATA: NOERROR aa, SOA of TTL = minimum (RFC 2308, 3)", query("c1.alt.test", "AAAA"), *NODATA)
ask(3, "AAAA denied, `negative_ttl` = 1 s", "NODATA, SOA of TTL = minimum = 1",
    query("denied.alt.test", "AAAA"), *NODATA,
    lambda reply: None if reply.authority[0].ttl == 1 else f"the TTL is {reply.authority[0].ttl}")
ask(4, "A v6", "the IPv4 nodes only", query("v6.alt.test"), aa, answer("A", 2), data(NODES["v6.alt.test"][:2]))
ask(4, "AAAA v6", "the IPv6 nodes only",
    query("v6.alt.test", "AAAA"), aa, answer("AAAA", 2), data(NODES["v6.alt.test"][2:]))
ask(5, "SOA c1", "1 SOA aa", query("c1.alt.test", "SOA"), rcode("NOERROR"), aa, answer("SOA", 1), no_authority)
ask(6, "NS c1", "the configured NS aa, and the address of the one in the zone",
    query("c1.alt.test", "NS"), rcode("NOERROR"), aa, answer("NS", 2),
        data(["ns1.c1.alt.test.", "ns2.elsewhere.test."]),
    lambda reply: None if [r.data for r in reply.additional] == ["192.0.2.1"] else f"additional: {reply.additional}")
ask(6, "A ns1.c1", "its address, aa", query("ns1.c1.alt.test"), aa, answer("A", 1), data(["192.0.2.1"]), ttl(3600))
for rtype in ("TYPE1000", "HTTPS", "SVCB", "TXT", "TYPE0"):
    ask(7, f"{rtype} c1", "NODATA (RFC 3597, 5)", query("c1.alt.test", rtype), *NODATA)
for below in ("x.c1.alt.test", "y.x.c1.alt.test"):
    ask(8, f"A {below}", "NXDOMAIN aa, SOA (RFC 8020, 2)", query(below), *NO_SUCH_NAME)
ask(8, "A b.nest, above the zone a.b.nest", "NODATA: an empty non-terminal (RFC 8020, 3.1)",
    query("b.nest.alt.test"), *NODATA)
ask(8, "DS a.b.nest, a zone below nest", "NODATA from the zone above (RFC 4035, 3.1.4.1)",
    query("a.b.nest.alt.test", "DS"), *NODATA,
    lambda reply: None if reply.authority[0].owner == "nest.alt.test." else f"it is from {reply.authority[0].owner}")
for elsewhere, rtype in (("other.test", "A"), ("alt.test", "A"), (".", "NS")):
    ask(9, f"{rtype} {elsewhere}", "REFUSED, aa=0, empty", query(elsewhere, rtype), *REFUSED)
ask(9, "A other.test, EDNS", "the same, EDE 20 (RFC 8914, 4.21)", query("other.test", edns=opt()), *REFUSED,
    explained(20))
ask(10, "A cL.aLt, mixed case", "the same answer, the question echoed octet for octet (RFC 4343)",
    query("C1.aLt.TeSt"), *THREE, echoes(question("C1.aLt.TeSt")))
for transport in ("udp", "tcp"):
    ask(11, f"ANY c1, {transport.upper()}", "one RRset, at most 512 B, no TC (RFC 8482, 4.1)",
        query("c1.alt.test", "ANY"),
        rcode("NOERROR"), aa, answer("A", 3), at_most(512), lambda reply: "TC is set" if not tc(reply) else None,
        transport=transport)

# --- What is not served -------------------------------------------------------------------------------------------

ask(12, "AXFR c1, TCP", "REFUSED, no records", query("c1.alt.test", "AXFR"), *REFUSED, transport="tcp")
ask(12, "IXFR c1, UDP", "REFUSED, no records", query(
    "c1.alt.test", "IXFR", authority=[record("c1.alt.test", "SOA", "IN", 0, name("a") * 2 + bytes(20))]), *REFUSED)


def text_of(wanted):
    return lambda reply: first([
        answer("TXT", 1)(reply),
        None if reply.answer[0].data == wanted else f"it is {reply.answer[0].data!r}",
        None if reply.answer[0].rclass == wire.CLASSES["CH"] else "its class is not CH",
    ])


for chaos, wanted in (
    ("version.bind", VERSION), ("version.server", VERSION), ("id.server", IDENTITY), ("hostname.bind", IDENTITY)
):
    ask(13, f"CH TXT {chaos}", "the configured text (RFC 4892)", query(chaos, "TXT", "CH"), rcode("NOERROR"),
        text_of(wanted))
ask(13, "CH A id.server", "no text where none is asked for", query("id.server", "A", "CH"),
    rcode("NOERROR", "REFUSED"), answer())
for qclass in ("CH", "HS", "NONE", "ANY", "CLASS0"):
    ask(13, f"{qclass} A c1", "REFUSED", query("c1.alt.test", "A", qclass), *REFUSED)
for word, bit in (("CD", CD), ("AD", AD), ("Z", Z)):
    ask(14, f"A c1, {word}=1", "the same answer, the bit clear (RFC 4035, 3.1.6)", query("c1.alt.test", flags=bit),
        *THREE)
ask(15, "opcode 15, a header alone", "NOTIMP, opcode kept, 12 B", message(opcode=15), rcode("NOTIMP"), octets(12))
ask(15, "opcode 15 and a question", "NOTIMP, 12 B", message(question("c1.alt.test"), opcode=15), rcode("NOTIMP"),
    octets(12))
for word, opcode in (("IQUERY", 1), ("STATUS", 2), ("NOTIFY", 4), ("UPDATE", 5), ("DSO", 6)):
    asked = message(opcode=opcode) if word == "DSO" else message(question("c1.alt.test", "SOA"), opcode=opcode)
    ask(15, f"{word}, UDP", "NOTIMP", asked, rcode("NOTIMP"), not_aa, answer())
ask(15, "DSO, TCP", "NOTIMP (RFC 8490, 5.1.1)", message(opcode=6), rcode("NOTIMP"), transport="tcp")

# --- What is ill-formed -------------------------------------------------------------------------------------------

FORMERR = (rcode("FORMERR"), not_aa, answer(), no_authority)
LONGEST = ".".join(["x" * 63] * 3 + ["x" * 49, "c1.alt.test"])
"""255 octets in wire format."""

ask(16, "A c1, QR=1", "no reply", query("c1.alt.test", flags=QR), dropped)
ask(17, "no question, no OPT", "FORMERR", message(), *FORMERR, no_question)
ask(17, "no question, OPT", "FORMERR, OPT (RFC 6891, 7)", message(additional=[opt()]), *FORMERR, no_question, has_opt)
ask(17, "two questions", "FORMERR, at most one question (RFC 9619, 3)",
    message(question("c1.alt.test"), question("v6.alt.test")), *FORMERR)
ask(18, "11 octets", "no reply", COMMON_QUERY[:11], dropped)
ask(18, "a name that is cut short", "FORMERR", COMMON_QUERY[:18], *FORMERR)
ask(18, "a label of 64 octets", "FORMERR", message(question(b"\x40" + b"x" * 64 + name("c1.alt.test"))), *FORMERR)
for word, pointer in (("forward", 0x40), ("to itself", 12), ("into the header", 0)):
    ask(18, f"a pointer {word} as the name", "FORMERR (RFC 1035, 4.1.4)",
        message(question(b"\xc0" + bytes([pointer]))), *FORMERR)
ask(18, "a label of type 01", "FORMERR", message(question(b"\x41x\0")), *FORMERR)
ask(19, "A of a name of 255 octets below c1", "NXDOMAIN", query(LONGEST), *NO_SUCH_NAME)
ask(19, "A of a name of 256 octets", "FORMERR", query("x" + LONGEST), *FORMERR)
ask(20, "7 octets behind the question", "answered", query("c1.alt.test", trailing=bytes(7)), *THREE)
ask(20, "an answer section in the question", "answered",
    query("c1.alt.test", answer=[record("c1.alt.test", "A", "IN", 0, bytes(4))]), rcode("NOERROR"), answer("A", 3))
assert len(name(LONGEST)) == 255

# --- EDNS ---------------------------------------------------------------------------------------------------------

ask(21, "EDNS 1232", "the same answer; OPT v0 with our size, no options (RFC 6891, 6)",
    query("c1.alt.test", edns=opt()), *THREE, has_opt, no_options, edns_flags(0))
ask(21, "EDNS 1232, DO", "DO copied (RFC 3225, 3)", query("c1.alt.test", edns=opt(flags=DO)), *THREE, has_opt,
    edns_flags(DO))
ask(21, "EDNS, NXDOMAIN", "OPT in negative answers, too", query("x.c1.alt.test", edns=opt()), *NO_SUCH_NAME, has_opt)
BADVERS = (rcode("BADVERS"), not_aa, answer(), has_opt)
ask(22, "EDNS v1", "BADVERS, OPT v0, no answer (RFC 6891, 6.1.3)", query("c1.alt.test", edns=opt(version=1)), *BADVERS,
    no_options)
ask(22, "EDNS v1, unknown option", "BADVERS, not echoed",
    query("c1.alt.test", edns=opt(option(65001, b"x"), version=1)), *BADVERS, no_options)
ask(22, "EDNS v1, unknown flag", "BADVERS, flag clear", query("c1.alt.test", edns=opt(version=1, flags=1)), *BADVERS,
    edns_flags(0))
ask(22, "EDNS v1, DO", "BADVERS", query("c1.alt.test", edns=opt(version=1, flags=DO)), *BADVERS)
ask(23, "unknown option 65001", "ignored, not echoed (RFC 6891, 6.1.2)",
    query("c1.alt.test", edns=opt(option(65001, b"x"))),
    *THREE, no_options)
ask(23, "unknown EDNS flags", "clear in the reply (RFC 6891, 6.1.4)", query("c1.alt.test", edns=opt(flags=0x7FFF)),
    *THREE, has_opt, edns_flags(0))
ask(24, "two OPT", "FORMERR (RFC 6891, 6.1.1)", message(question("c1.alt.test"), additional=[opt(), opt()]),
    *FORMERR)
ask(24, "an option that reaches over the end", "FORMERR",
    query("c1.alt.test", edns=opt(data=struct.pack(">HH", 65001, 9) + b"x")), *FORMERR)
ask(24, "an OPT owned by a name", "FORMERR (RFC 6891, 6.1.2)", query("c1.alt.test", edns=opt(owner=name("x"))),
    *FORMERR)
ask(24, "an OPT in the answer section", "FORMERR", message(question("c1.alt.test"), answer=[opt()]), *FORMERR)
for size in (0, 100):
    ask(25, f"A all (100 A), EDNS size {size}", "as 512: TC, at most 512 B, OPT (RFC 6891, 6.2.3)",
        query("all.alt.test", edns=opt(size=size)), rcode("NOERROR"), tc, at_most(512), has_opt)
    ask(25, f"A c1, EDNS size {size}", "answered whole", query("c1.alt.test", edns=opt(size=size)), *THREE, has_opt)
ask(26, "NSID asked", "ours (RFC 5001, 2.1)", query("c1.alt.test", edns=opt(option(NSID))), *THREE,
    with_option(NSID, IDENTITY.encode()))
ask(26, "NSID asked with data", "ours, the data ignored (RFC 5001, 2.1)",
    query("c1.alt.test", edns=opt(option(NSID, b"you"))),
    *THREE, with_option(NSID, IDENTITY.encode()))
ask(26, "NSID not asked", "none", query("c1.alt.test", edns=opt()), *THREE, without_option(NSID))
ask(28, "ECS 192.0.2.0/24", "the same answer; no ECS (RFC 7871, 7.2.2)",
    query("c1.alt.test", edns=opt(option(ECS, bytes.fromhex("00011800c00002")))), *THREE, without_option(ECS))
ask(29, "padding, UDP", "none in the reply (RFC 7830, 6)", query("c1.alt.test", edns=opt(option(PADDING, bytes(32)))),
    *THREE, without_option(PADDING))
ask(29, "keepalive, UDP", "none in the reply (RFC 7828, 3.3.2)", query("c1.alt.test", edns=opt(option(KEEPALIVE))),
    *THREE, without_option(KEEPALIVE))
ask(29, "keepalive, TCP", "`idle`, in tenths of a second (RFC 7828, 3.3.2)",
    query("c1.alt.test", edns=opt(option(KEEPALIVE))),
    rcode("NOERROR"), answer("A", 3), with_option(KEEPALIVE, struct.pack(">H", IDLE_TENTHS)), transport="tcp")

# --- Cookies ------------------------------------------------------------------------------------------------------


def fresh_cookie(reply):
    found = reply.options(COOKIE)
    if len(found) != 1:
        return f"there are {len(found)} cookies"
    return cookies.problem(found[0], COOKIE_OF_CLIENT, CLIENT, SECRET)


def with_cookie(cookie, **rest):
    return query("c1.alt.test", edns=opt(option(COOKIE, cookie)), **rest)


ask(27, "cookie of 8 octets", "the answer and a cookie of 24 octets, from the shared secret (RFC 9018, 4)",
    with_cookie(COOKIE_OF_CLIENT), *THREE, fresh_cookie)
ask(27, "cookie of 8 octets, TCP", "the same", with_cookie(COOKIE_OF_CLIENT), rcode("NOERROR"), answer("A", 3),
    fresh_cookie,
    transport="tcp")
for length in (0, 7, 9, 15, 41):
    ask(27, f"cookie of {length} octets", "FORMERR (RFC 7873, 5.2.2)", with_cookie(bytes(length)), *FORMERR)
ask(27, "forged cookie of 24 octets", "answered, or BADCOOKIE; a fresh cookie (RFC 7873, 5.2.4)",
    with_cookie(COOKIE_OF_CLIENT + bytes.fromhex("0100000000000000") + bytes(8)),
    rcode("NOERROR", "BADCOOKIE"), fresh_cookie)
ask(27, "no question, cookie of 8 octets", "NOERROR, no question, a cookie (RFC 7873, 5.4)",
    message(additional=[opt(option(COOKIE, COOKIE_OF_CLIENT))]), rcode("NOERROR"), no_question, answer(), fresh_cookie)
ask(27, "cookie, a name of no zone", "REFUSED and a cookie",
    query("other.test", edns=opt(option(COOKIE, COOKIE_OF_CLIENT))),
    rcode("REFUSED"), fresh_cookie)
ask(27, "cookie, NSID and keepalive, UDP", "what was asked for, and no keepalive",
    query("c1.alt.test", edns=opt(option(NSID), option(KEEPALIVE), option(COOKIE, COOKIE_OF_CLIENT))),
    *THREE, fresh_cookie, with_option(NSID, IDENTITY.encode()), without_option(KEEPALIVE))
ask(27, "cookie, EDNS v1", "BADVERS",
    query("c1.alt.test", edns=opt(option(COOKIE, COOKIE_OF_CLIENT), version=1)), *BADVERS)
ask(27, "EDNS, no cookie", "no cookie", query("c1.alt.test", edns=opt()), *THREE, without_option(COOKIE))

# --- Size ---------------------------------------------------------------------------------------------------------

BIG, EVERY = "big.alt.test", "all.alt.test"

ask(30, "A big (answers = 8), no EDNS", "8 of the 100, no TC, at most 512 B",
    query(BIG), rcode("NOERROR"), aa, answer("A", 8), among(NODES[BIG]), at_most(512))
ask(30, 'A all (answers = "all"), no EDNS', "TC, at most 512 B, the whole records that fit",
    query(EVERY), rcode("NOERROR"), tc, at_most(512), answer("A", 30), among(NODES[EVERY]), no_authority)
ask(31, "A all, EDNS 4096", "TC, at most 1232 B, the whole records that fit, OPT (RFC 6891, 7)",
    query(EVERY, edns=opt(size=4096)), rcode("NOERROR"), tc, at_most(UDP_OCTETS), answer("A", 74), among(NODES[EVERY]),
    has_opt)
ask(32, "A all, TCP", "100 A, no TC", query(EVERY), rcode("NOERROR"), aa, answer("A", 100), data(NODES[EVERY]),
    transport="tcp")
ask(32, "A big, TCP", "8 A: the number is the same on every transport", query(BIG), answer("A", 8), transport="tcp")


# --- Delegated names that are no zones ----------------------------------------------------------------------------

HUB = "alternator.alt.test"
ask(9, f"SOA {HUB}, which is delegated and no zone", "1 SOA aa", query(HUB, "SOA"), rcode("NOERROR"), aa,
    answer("SOA", 1))
ask(9, f"NS {HUB}", "the configured NS aa", query(HUB, "NS"), rcode("NOERROR"), aa, answer("NS", 2))
ask(9, f"A {HUB}", "NODATA", query(HUB), *NODATA)
ask(9, f"A x.{HUB}", "NXDOMAIN", query(f"x.{HUB}"), *NO_SUCH_NAME)
ask(9, f"ANY {HUB}", "one of its RRsets (RFC 8482, 4.1)", query(HUB, "ANY"), rcode("NOERROR"), aa, some_records)
ask(9, f"A east.{HUB}, below which there is a zone", "NODATA", query(f"east.{HUB}"), *NODATA)
ask(9, f"A one.east.{HUB}, the zone", "2 A aa", query(f"one.east.{HUB}"), aa, answer("A", 2))


def run(world, report):
    for case in sorted(CASES, key=lambda case: case.number):
        seen, problem = {}, None
        for server in world.servers:
            shown, wrong = case.ask(server)
            seen[server.name] = shown
            problem = wrong if server.ours else problem
        report.case(case.number, case.question, case.demand, seen, problem)
