//! Questions and their replies, as text.

use super::*;

/// Each block is a question and its reply. `+512` is an OPT with that size, `do` and `rd` set the flag, `tcp` the
/// transport, `=6` the class; `nsid`, `cookie`, `keepalive` and `padding` are options, `from` another network's client. A reply begins with rcode and flags; answers are sorted, sections are marked.
const CASES: &str = "
> c1.alt.test. A
NOERROR aa
c1.alt.test. 5 IN A 10.0.0.1
c1.alt.test. 5 IN A 10.0.0.2
c1.alt.test. 5 IN A 10.0.0.3

> c1.alt.test. A rd tcp
NOERROR aa rd
c1.alt.test. 5 IN A 10.0.0.1
c1.alt.test. 5 IN A 10.0.0.2
c1.alt.test. 5 IN A 10.0.0.3

> C1.aLt.tEST. AAAA
NOERROR aa
; authority
C1.aLt.tEST. 5 IN SOA ns.C1.aLt.tEST. hostmaster.C1.aLt.tEST. 7 60 10 1209600 5

> c1.alt.test. SOA +1232 do
NOERROR aa
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5
; opt 1232 do

> c1.alt.test. NS
NOERROR aa
c1.alt.test. 3600 IN NS elsewhere.example.
c1.alt.test. 3600 IN NS ns.c1.alt.test.
; additional
ns.c1.alt.test. 3600 IN A 192.0.2.53
ns.c1.alt.test. 3600 IN AAAA 2001:db8::53

> ns.c1.alt.test. A
NOERROR aa
ns.c1.alt.test. 3600 IN A 192.0.2.53

> ns.c1.alt.test. AAAA
NOERROR aa
ns.c1.alt.test. 3600 IN AAAA 2001:db8::53

> ns.c1.alt.test. ANY
NOERROR aa
ns.c1.alt.test. 3600 IN A 192.0.2.53

> ns.c1.alt.test. TXT
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> c1.alt.test. ANY
NOERROR aa
c1.alt.test. 5 IN A 10.0.0.1
c1.alt.test. 5 IN A 10.0.0.2
c1.alt.test. 5 IN A 10.0.0.3

> c1.alt.test. HTTPS
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> c1.alt.test. TYPE0
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> c1.alt.test. TYPE41
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> x.c1.alt.test. A
NXDOMAIN aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> y.x.c1.alt.test. A
NXDOMAIN aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> b.c1.alt.test. A
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> a.b.c1.alt.test. AAAA
NOERROR aa
a.b.c1.alt.test. 4 IN AAAA 2001:db8::1

> a.b.c1.alt.test. ANY
NOERROR aa
a.b.c1.alt.test. 4 IN AAAA 2001:db8::1

> a.b.c1.alt.test. NS
NOERROR aa
; authority
a.b.c1.alt.test. 4 IN SOA a.b.c1.alt.test. hostmaster.a.b.c1.alt.test. 7 60 10 1209600 4

> alt.test. NS
REFUSED

> other.test. A +4096
REFUSED
; opt 1232
; ede 20

> c1.alt.test. AXFR tcp
REFUSED

> c1.alt.test. IXFR +512
REFUSED
; opt 1232

> c1.alt.test. A =3 +512
REFUSED
; opt 1232

> c1.alt.test. A =255
REFUSED

> new.alt.test. A +1232
SERVFAIL
; opt 1232
; ede 14 no node to answer with

> new.alt.test. ANY
SERVFAIL

> new.alt.test. SOA
NOERROR aa
new.alt.test. 1 IN SOA new.alt.test. hostmaster.new.alt.test. 7 60 10 1209600 1

> seeds.alt.test. A
NOERROR aa
seeds.alt.test. 2 IN A 10.0.9.1

> seeds.alt.test. AAAA
NOERROR aa
; authority
seeds.alt.test. 1 IN SOA seeds.alt.test. hostmaster.seeds.alt.test. 7 60 10 1209600 1

> old.alt.test. A +1232
NOERROR aa
old.alt.test. 4 IN A 10.0.0.9
; opt 1232
; ede 3

> old.alt.test. A
NOERROR aa
old.alt.test. 4 IN A 10.0.0.9

> any.Thing.sub.alt.test. A
NOERROR aa
any.Thing.sub.alt.test. 4 IN A 10.0.0.7

> sub.alt.test. A
NOERROR aa
sub.alt.test. 4 IN A 10.0.0.7

> any.sub.alt.test. SOA
NOERROR aa
; authority
sub.alt.test. 4 IN SOA ns.deep.sub.alt.test. hostmaster.sub.alt.test. 7 60 10 1209600 4

> any.sub.alt.test. NS
NOERROR aa
; authority
sub.alt.test. 4 IN SOA ns.deep.sub.alt.test. hostmaster.sub.alt.test. 7 60 10 1209600 4

> deep.sub.alt.test. ANY
NOERROR aa
deep.sub.alt.test. 4 IN A 10.0.0.7

> ns.deep.sub.alt.test. A
NOERROR aa
ns.deep.sub.alt.test. 3600 IN A 192.0.2.54

> version.bind. TXT =3
NOERROR aa
version.bind. 0 CH TXT one

> ID.Server. ANY =3 +1232 nsid
NOERROR aa
ID.Server. 0 CH TXT ns-7
; opt 1232
; nsid ns-7

> version.bind. TXT
REFUSED

> version.bind. A =3
REFUSED

> authors.bind. TXT =3
REFUSED

> one.alt.test. TXT +1232 do nsid cookie keepalive
NOERROR aa
; authority
one.alt.test. 4 IN SOA one.alt.test. hostmaster.one.alt.test. 7 60 10 1209600 4
; opt 1232 do
; nsid ns-7
; cookie 2464c4abcf10c957010000005cf79f111f8130c3eee29480

> one.alt.test. TXT +1232 keepalive tcp
NOERROR aa
; authority
one.alt.test. 4 IN SOA one.alt.test. hostmaster.one.alt.test. 7 60 10 1209600 4
; opt 1232
; keepalive 0064

> one.alt.test. TXT +1232 keepalive tls
NOERROR aa
; authority
one.alt.test. 4 IN SOA one.alt.test. hostmaster.one.alt.test. 7 60 10 1209600 4
; opt 1232
; keepalive 0064

> v6.alt.test. A +1232 keepalive quic
NOERROR aa
v6.alt.test. 4 IN A 10.0.0.1
; opt 1232

> v6.alt.test. A +1232 keepalive padding https
NOERROR aa
v6.alt.test. 4 IN A 10.0.0.1
; opt 1232
; padded to 468

> one.alt.test. A =3 +1232 nsid padding tls
REFUSED
; opt 1232
; nsid ns-7
; padded to 468

> v6.alt.test. A +1232 padding tcp
NOERROR aa
v6.alt.test. 4 IN A 10.0.0.1
; opt 1232

> other.test. A +1232 cookie
REFUSED
; opt 1232
; cookie 2464c4abcf10c957010000005cf79f111f8130c3eee29480
; ede 20

> secret.alt.test. A +1232
REFUSED
; opt 1232
; ede 18

> x.secret.alt.test. SOA
REFUSED

> hang.test. A
NOERROR aa
; authority
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> hang.test. NS
NOERROR aa
hang.test. 3600 IN NS ns.hang.test.
; additional
ns.hang.test. 3600 IN A 192.0.2.55

> hang.test. SOA
NOERROR aa
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> ns.hang.test. A
NOERROR aa
ns.hang.test. 3600 IN A 192.0.2.55

> east.hang.test. A
NOERROR aa
; authority
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> a.east.hang.test. A
NOERROR aa
a.east.hang.test. 4 IN A 10.0.0.8

> west.hang.test. A
NXDOMAIN aa
; authority
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> hang.test. ANY
NOERROR aa
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> a.east.hang.test. TYPE43
NOERROR aa
; authority
hang.test. 5 IN SOA ns.hang.test. hostmaster.hang.test. 7 60 10 1209600 5

> a.b.c1.alt.test. TYPE43
NOERROR aa
; authority
c1.alt.test. 5 IN SOA ns.c1.alt.test. hostmaster.c1.alt.test. 7 60 10 1209600 5

> one.alt.test. TYPE43
NOERROR aa
; authority
one.alt.test. 4 IN SOA one.alt.test. hostmaster.one.alt.test. 7 60 10 1209600 4
";

#[test]
fn replies_are_as_written() {
    let table = world();
    let counters = ProcessCounters::default();
    for case in CASES.trim().split("\n\n") {
        let (question, expected) = case.split_once('\n').unwrap();
        let ask = Ask::parse(question.strip_prefix("> ").unwrap());
        let query = ask.octets();
        let mut out = Vec::new();
        assert!(answered(&table, &counters, &query, ask.transport, &mut out), "{question}");
        assert_eq!(text_of(&out), expected, "{question}");
        assert_eq!(out[12..][..query.len() - 12 - ask.opt().len()], query[12..query.len() - ask.opt().len()]);
    }
}
