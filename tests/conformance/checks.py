"""Checks of replies. A check takes a reply and returns what is wrong with it, or None."""

import struct

from wire import AA, AD, CD, EDE, QR, RA, RD, TC, TYPES, Z, words

UDP_OCTETS = 1232


def first(problems):
    return next((problem for problem in problems if problem), None)


def problem_with(reply, checks):
    if reply is None:
        return None if dropped in checks else "there is no reply"
    return first(check(reply) for check in checks)


def dropped(reply):
    """There must be no reply. Beside other checks: no reply is correct too."""
    return f"there is a reply: {words(reply)}" if reply else None


def rcode(*wanted):
    return lambda reply: None if reply.rcode in wanted else f"the rcode is {reply.rcode}"


def aa(reply):
    return None if reply.has(AA) else "AA is clear"


def not_aa(reply):
    return "AA is set" if reply.has(AA) else None


def tc(reply):
    return None if reply.has(TC) else "TC is clear"


def answer(rtype=None, count=0):
    """This many records of one type and one TTL, none twice, and nothing else."""

    def check(reply):
        found = [record.type for record in reply.answer]
        if found != [rtype] * count:
            return f"the answer is {found}"
        if len({record.ttl for record in reply.answer}) > 1:
            return "the TTLs differ (RFC 2181, 5.2)"
        return "a record is there twice (RFC 2181, 5)" if len(set(reply.answer)) < count else None

    return check


def some_records(reply):
    kinds = {record.type for record in reply.answer}
    return None if len(kinds) == 1 else f"the answer is {sorted(kinds)}"


def ttl(low, high=None):
    high = low if high is None else high
    return lambda reply: first(
        None if low <= record.ttl <= high else f"a TTL is {record.ttl}" for record in reply.answer
    )


def data(wanted):
    """The answer is this set."""
    return lambda reply: (
        None if {record.data for record in reply.answer} == set(wanted) else f"the answer is {reply.answer}"
    )


def among(wanted):
    return lambda reply: (
        None if {record.data for record in reply.answer} <= set(wanted) else f"the answer is {reply.answer}"
    )


def compressed(reply):
    """Every owner is a pointer to the question."""
    return None if {record.pointer for record in reply.answer} == {12} else "an owner is no pointer to the question"


def soa(reply):
    """The authority section is the zone's SOA, whose TTL is its minimum (RFC 2308, 3)."""
    if [record.type for record in reply.authority] != ["SOA"]:
        return f"the authority section is {reply.authority}"
    record = reply.authority[0]
    minimum = int(record.data.split()[-1])
    return None if record.ttl == minimum else f"the SOA's TTL is {record.ttl}, its minimum {minimum}"


def no_authority(reply):
    return f"the authority section is {reply.authority}" if reply.authority else None


def at_most(octets):
    return lambda reply: None if len(reply.octets) <= octets else f"the reply has {len(reply.octets)} octets"


def octets(count):
    return lambda reply: None if len(reply.octets) == count else f"the reply has {len(reply.octets)} octets"


def no_options(reply):
    if not reply.opt:
        return "there is no OPT"
    return f"there are options: {reply.opt.options}" if reply.opt.options else None


def has_opt(reply):
    """Version 0 and our own size (RFC 6891, 6.1.3 and 6.2.3)."""
    if not reply.opt:
        return "there is no OPT"
    if reply.opt.version or reply.opt.size != UDP_OCTETS:
        return f"the OPT has version {reply.opt.version} and size {reply.opt.size}"
    return None


def edns_flags(wanted):
    return lambda reply: None if reply.opt and reply.opt.flags == wanted else f"the OPT is {reply.opt}"


def with_option(code, wanted=None):
    def check(reply):
        found = reply.options(code)
        if len(found) != 1:
            return f"option {code} is there {len(found)} times"
        return None if wanted is None or found[0] == wanted else f"option {code} is {found[0]!r}"

    return check


def without_option(code):
    return lambda reply: f"there is an option {code}" if reply.options(code) else None


def explained(code):
    """An extended error with this INFO-CODE (RFC 8914)."""
    return lambda reply: (
        None
        if [struct.unpack(">H", data[:2])[0] for data in reply.options(EDE)] == [code]
        else f"the options are {reply.opt and reply.opt.options}"
    )


def echoes(message_question):
    return lambda reply: None if reply.questions == [message_question] else f"the questions are {reply.questions}"


def no_question(reply):
    return f"the questions are {reply.questions}" if reply.questions else None


def sound(message, transport):
    """The rules for every reply of ours."""
    flags = struct.unpack(">H", message[2:4])[0]

    def check(reply):
        if reply.opcode != flags >> 11 & 15:
            return f"the opcode is {reply.opcode}"
        if reply.has(RD) != bool(flags & RD):
            return "RD is not as in the question"
        for word, bit in (("RA", RA), ("AD", AD), ("CD", CD), ("Z", Z)):
            if reply.has(bit):
                return f"{word} is set"
        if reply.counts[0] > 1:
            return f"there are {reply.counts[0]} questions (RFC 9619)"
        if reply.counts[0] and reply.questions[0] not in message:
            return "the question is not echoed octet for octet"
        if transport == "udp" and len(reply.octets) > UDP_OCTETS:
            return f"{len(reply.octets)} octets over UDP"
        if reply.opt and struct.pack(">H", TYPES["OPT"]) not in message[12:]:
            return "there is an OPT, and none was sent"
        return None

    assert not flags & QR or transport == "udp"
    return check


NODATA = (rcode("NOERROR"), aa, answer(), soa)
NO_SUCH_NAME = (rcode("NXDOMAIN"), aa, answer(), soa)
REFUSED = (rcode("REFUSED"), not_aa, answer(), no_authority)
THREE = (rcode("NOERROR"), aa, answer("A", 3), ttl(5), no_authority)
