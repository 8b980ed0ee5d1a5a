"""DNS messages octet by octet: written as loosely as a test wants them, read strictly.

A library would refuse to write most of the messages that matter here, and would forgive what the replies must not do.
"""

import ipaddress
import struct
from dataclasses import dataclass, field

TYPES = {
    "A": 1,
    "NS": 2,
    "CNAME": 5,
    "SOA": 6,
    "PTR": 12,
    "HINFO": 13,
    "MX": 15,
    "TXT": 16,
    "AAAA": 28,
    "SRV": 33,
    "DS": 43,
    "OPT": 41,
    "RRSIG": 46,
    "NSEC": 47,
    "DNSKEY": 48,
    "SVCB": 64,
    "HTTPS": 65,
    "TSIG": 250,
    "IXFR": 251,
    "AXFR": 252,
    "ANY": 255,
    "CAA": 257,
}
TYPE_NAMES = {number: name for name, number in TYPES.items()}
CLASSES = {"IN": 1, "CH": 3, "HS": 4, "NONE": 254, "ANY": 255}
RCODES = {
    0: "NOERROR",
    1: "FORMERR",
    2: "SERVFAIL",
    3: "NXDOMAIN",
    4: "NOTIMP",
    5: "REFUSED",
    6: "YXDOMAIN",
    9: "NOTAUTH",
    16: "BADVERS",
    23: "BADCOOKIE",
}

# Header flags (RFC 1035, 4.1.1; RFC 4035, 3).
QR, AA, TC, RD, RA, Z, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0040, 0x0020, 0x0010
FLAGS = {"aa": AA, "tc": TC, "rd": RD, "ra": RA, "z": Z, "ad": AD, "cd": CD}
# The EDNS flag DO (RFC 3225, 3).
DO = 0x8000
# EDNS options (IANA, DNS EDNS0 Option Codes).
NSID, ECS, COOKIE, KEEPALIVE, PADDING, EDE = 3, 8, 10, 11, 12, 15
OPTIONS = {NSID: "nsid", ECS: "ecs", COOKIE: "cookie", KEEPALIVE: "keepalive", PADDING: "padding", EDE: "ede"}


# --- Writing -----------------------------------------------------------------------------------------------------


def name(text):
    """A name in wire format; nothing limits its length."""
    labels = [label.encode() for label in text.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def number(word, words):
    """A type or class: a word of the table, a number, or TYPE1000 and CLASS1000 (RFC 3597, 5)."""
    if isinstance(word, int):
        return word
    return words[word] if word in words else int(word.removeprefix("TYPE").removeprefix("CLASS"))


def question(qname, qtype="A", qclass="IN"):
    owner = qname if isinstance(qname, bytes) else name(qname)
    return owner + struct.pack(">HH", number(qtype, TYPES), number(qclass, CLASSES))


def option(code, data=b""):
    return struct.pack(">HH", code, len(data)) + data


def opt(*options, size=1232, version=0, flags=0, owner=b"\0", data=None):
    """An OPT record; `data` takes the place of the options where they are to be ill-formed."""
    data = b"".join(options) if data is None else data
    return owner + struct.pack(">HHBBHH", TYPES["OPT"], size, 0, version, flags, len(data)) + data


def record(owner, rtype, rclass, ttl, data):
    return name(owner) + struct.pack(">HHIH", number(rtype, TYPES), number(rclass, CLASSES), ttl, len(data)) + data


def message(*questions, flags=0, opcode=0, answer=(), authority=(), additional=(), counts=None, trailing=b""):
    """A message with ID 0, which its sender replaces. `counts` takes the place of the true counts."""
    counts = counts or (len(questions), len(answer), len(authority), len(additional))
    header = struct.pack(">HHHHHH", 0, flags | opcode << 11, *counts)
    return header + b"".join([*questions, *answer, *authority, *additional]) + trailing


def query(qname, qtype="A", qclass="IN", *, flags=0, edns=None, **rest):
    """The common message: one question, and perhaps an OPT."""
    additional = () if edns is None else (edns,)
    return message(question(qname, qtype, qclass), flags=flags, additional=additional, **rest)


# --- Reading -----------------------------------------------------------------------------------------------------


class Malformed(Exception):
    """A reply that is no DNS message."""


@dataclass(frozen=True)
class Record:
    owner: str
    """In lower case, with the final dot."""
    type: str
    rclass: int
    ttl: int
    data: str
    pointer: int | None
    """Where the owner points, if it is a pointer and nothing else."""


@dataclass
class Opt:
    size: int
    version: int
    flags: int
    options: list


@dataclass
class Reply:
    octets: bytes
    id: int = 0
    flags: int = 0
    opcode: int = 0
    rcode: str = ""
    counts: tuple = ()
    questions: list = field(default_factory=list)
    """Each as it stands in the message."""
    answer: list = field(default_factory=list)
    authority: list = field(default_factory=list)
    additional: list = field(default_factory=list)
    """Without the OPT."""
    opt: Opt | None = None

    def has(self, flag):
        return bool(self.flags & flag)

    def options(self, code):
        """The data of each such option."""
        return [data for option, data in self.opt.options if option == code] if self.opt else []

    def data(self, rtype):
        return [record.data for record in self.answer if record.type == rtype]


def read(octets):
    return Reader(octets).reply()


class Reader:
    def __init__(self, octets):
        self.octets, self.at = octets, 0

    def take(self, count):
        if self.at + count > len(self.octets):
            raise Malformed("it ends too early")
        self.at += count
        return self.octets[self.at - count : self.at]

    def numbers(self, layout):
        return struct.unpack(">" + layout, self.take(struct.calcsize(">" + layout)))

    def reply(self):
        reply = Reply(self.octets)
        reply.id, bits, *counts = self.numbers("HHHHHH")
        reply.counts = tuple(counts)
        if not bits & QR:
            raise Malformed("QR is clear")
        reply.opcode, reply.flags, rcode = bits >> 11 & 15, bits & 0x07F0, bits & 15
        for _ in range(counts[0]):
            start = self.at
            self.name()
            self.take(4)
            reply.questions.append(self.octets[start : self.at])
        for count, section in zip(counts[1:], (reply.answer, reply.authority, reply.additional)):
            for _ in range(count):
                rcode |= self.record(reply, section) << 4
        if self.at != len(self.octets):
            raise Malformed(f"{len(self.octets) - self.at} octets too many")
        reply.rcode = RCODES.get(rcode, f"RCODE{rcode}")
        return reply

    def record(self, reply, section):
        """Adds a record to its section; an OPT goes to a place of its own, and its extended rcode is returned."""
        start = self.at
        owner = self.name()
        first, second = self.octets[start], self.octets[start + 1]
        pointer = (first & 0x3F) << 8 | second if first & 0xC0 == 0xC0 else None
        rtype, rclass, ttl, length = self.numbers("HHIH")
        end = self.at + length
        if rtype == TYPES["OPT"]:
            if section is not reply.additional or reply.opt or owner != ".":
                raise Malformed("the OPT is not the one in the additional section, owned by the root")
            reply.opt = Opt(rclass, ttl >> 16 & 255, ttl & 0xFFFF, self.options(end))
            return ttl >> 24
        word = TYPE_NAMES.get(rtype, f"TYPE{rtype}")
        section.append(Record(owner, word, rclass, ttl, self.record_data(word, end), pointer))
        if self.at != end:
            raise Malformed(f"the data of {word} has another length than it says")
        return 0

    def options(self, end):
        options = []
        while self.at < end:
            code, length = self.numbers("HH")
            options.append((code, self.take(length)))
        if self.at != end:
            raise Malformed("an option reaches over the end of the OPT")
        return options

    def record_data(self, rtype, end):
        if rtype in ("A", "AAAA"):
            return str(ipaddress.ip_address(self.take(end - self.at)))
        if rtype in ("NS", "CNAME", "PTR"):
            return self.name()
        if rtype == "SOA":
            return " ".join([self.name(), self.name(), *map(str, self.numbers("IIIII"))])
        if rtype in ("TXT", "HINFO"):
            strings = []
            while self.at < end:
                strings.append(self.take(self.take(1)[0]).decode(errors="replace"))
            return " ".join(strings)
        return self.take(end - self.at).hex()

    def name(self):
        """A name in lower case. Pointers lead back, so that they end."""
        labels, at, after, limit = [], self.at, None, self.at
        while True:
            length = self.octet(at)
            if length & 0xC0 == 0xC0:
                target = (length & 0x3F) << 8 | self.octet(at + 1)
                after = after or at + 2
                if target >= limit:
                    raise Malformed("a compression pointer leads forward")
                at = limit = target
            elif length > 63:
                raise Malformed("a label is longer than 63 octets")
            elif length == 0:
                self.at = after or at + 1
                return ".".join(labels) + "."
            else:
                labels.append(self.octets[at + 1 : at + 1 + length].decode("latin-1").lower())
                at += 1 + length

    def octet(self, at):
        if at >= len(self.octets):
            raise Malformed("it ends within a name")
        return self.octets[at]


# --- In a few words ----------------------------------------------------------------------------------------------


def words(reply):
    """A reply as a table shows it: `NOERROR aa 3A`."""
    if reply is None:
        return "drop"
    parts = [reply.rcode]
    parts += [flag for flag, bit in FLAGS.items() if flag != "rd" and reply.has(bit)]
    parts += counted(reply.answer)
    parts += ["+" + records for records in counted(reply.authority)]
    parts += ["add " + records for records in counted(reply.additional)]
    if reply.opt:
        parts.append("opt")
        parts += [option_words(code, data) for code, data in reply.opt.options]
    if len(reply.octets) == 12:
        parts.append("12 B")
    return " ".join(parts)


def counted(records):
    kinds = dict.fromkeys(record.type for record in records)
    count = {kind: sum(record.type == kind for record in records) for kind in kinds}
    return [kind if count[kind] == 1 else f"{count[kind]} {kind}" for kind in kinds]


def option_words(code, data):
    if code == EDE and len(data) >= 2:
        return f"EDE {struct.unpack('>H', data[:2])[0]}"
    if code == COOKIE:
        return f"cookie {len(data)} B"
    return OPTIONS.get(code, f"option {code}")
