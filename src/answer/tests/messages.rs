//! Messages that are malformed or rate-limited, and cookies.

use super::*;
use crate::{table::Limiter, types::RateLimit};

#[test]
fn malformed_messages_get_formerr_or_silence() {
    let good = Ask::parse("c1.alt.test. A").octets();
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let with = |tail: &[u8], additional: u8| {
        let mut message = [&good, tail].concat();
        message[11] = additional;
        message
    };
    assert_eq!(rcode(&good), "NOERROR");
    assert_eq!(rcode(&[&good[..], &[1, 2, 3]].concat()), "NOERROR", "octets behind the end are ignored");
    assert_eq!(rcode(&good[..11]), "silence");
    assert_eq!(rcode(&[&good[..2], &[0x80], &good[3..]].concat()), "silence", "QR=1");
    for end in 12..good.len() {
        assert_eq!(rcode(&good[..end]), "FORMERR 12", "cut at {end}");
    }
    let questions = |count| [&good[..5], &[count], &good[6..], &good[12..]].concat();
    assert_eq!(rcode(&questions(0)), "FORMERR 12");
    assert_eq!(rcode(&questions(2)), "FORMERR 12");
    assert_eq!(rcode(&[&good[..12], &[0xC0, 12, 0, 1, 0, 1]].concat()), "FORMERR 12", "a pointer to itself");
    assert_eq!(rcode(&[&good[..12], &[64; 65][..], &[0, 0, 1, 0, 1]].concat()), "FORMERR 12", "a label of 64");
    let labels = |count: usize, last: u8| {
        let name = [[1, b'a'].repeat(count), vec![last], vec![b'a'; last.into()], vec![0]].concat();
        [&good[..12], &name, &[0, 1, 0, 1]].concat()
    };
    assert_eq!(rcode(&labels(126, 1)), "REFUSED", "255 octets");
    assert_eq!(rcode(&labels(126, 2)), "FORMERR 12", "256 octets");
    assert_eq!(rcode(&with(&opt, 1)), "NOERROR opt");
    assert_eq!(rcode(&with(&opt, 2)), "FORMERR 40 opt", "the second record is missing");
    assert_eq!(rcode(&with(&[opt, opt].concat(), 2)), "FORMERR 40 opt", "two OPTs");
    assert_eq!(rcode(&with(&[&[1, b'a'][..], &opt].concat(), 1)), "FORMERR 40 opt", "an OPT that is not the root's");
    let options = |octets: &[u8]| {
        let length = u8::try_from(octets.len()).unwrap();
        with(&[&opt[..10], &[length], octets].concat(), 1)
    };
    assert_eq!(rcode(&options(&[0xFD, 0xE9, 0, 2, 7, 7])), "NOERROR opt", "an unknown option");
    assert_eq!(rcode(&options(&[0xFD, 0xE9, 0, 3, 7, 7])), "FORMERR 40 opt", "an option beyond the end");
    assert_eq!(rcode(&options(&[0xFD])), "FORMERR 40 opt");
    let record = [0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4];
    assert_eq!(rcode(&with(&[&record[..], &opt].concat(), 2)), "NOERROR opt", "other records are skipped");
    assert_eq!(rcode(&with(&[&[0xC0, 200], &record[2..]].concat(), 1)), "FORMERR 29", "a pointer forward");
}

#[test]
fn other_opcodes_get_notimp_and_other_versions_badvers() {
    let mut query = Ask::parse("c1.alt.test. A rd +1232 do").octets();
    let version_at = query.len() - 5;
    query[version_at] = 1;
    let mut out = Vec::new();
    let counters = ProcessCounters::default();
    assert!(answered(&world(), &counters, &query, Transport::Udp, &mut out));
    assert_eq!(text_of(&out), "BADVERS rd\n; opt 1232 do");
    assert_eq!(out[3] & 0x0F, 0, "the low bits are NOERROR's");
    for opcode in [1_u8, 2, 4, 5, 6, 15] {
        query[2] = opcode << 3 | 1;
        assert!(answered(&world(), &counters, &query, Transport::Udp, &mut out));
        assert_eq!(out, [query[0], query[1], 0x80 | opcode << 3 | 1, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(counters.no_zone.of(QueryType::Other, Rcode::NotImp, Transport::Udp).value(), 6);
    assert_eq!(counters.no_zone.of(QueryType::Other, Rcode::BadVers, Transport::Udp).value(), 1);
}

#[test]
fn a_cookie_needs_no_question_and_its_length_is_checked() {
    let head = [0xAB, 0xCD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let with = |head: &[u8], length: u8| {
        let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, length + 4, 0, 10, 0, length];
        [head, &opt, &(1..=length).collect::<Vec<_>>()].concat()
    };
    let mut out = Vec::new();
    assert!(answered(&world(), &ProcessCounters::default(), &with(&head, 8), Transport::Udp, &mut out));
    assert!(
        text_of(&out).starts_with("NOERROR\n; opt 1232\n; cookie 0102030405060708010000005cf79f11"),
        "{}",
        text_of(&out)
    );
    assert_eq!(out[4..6], [0, 0]);
    let mut question = Ask::parse("one.alt.test. A").octets();
    question[11] = 1;
    for (length, expected) in
        [(0, false), (7, false), (8, true), (9, false), (15, false), (16, true), (40, true), (41, false)]
    {
        let expected = if expected { "NOERROR opt".to_owned() } else { format!("FORMERR {} opt", question.len() + 11) };
        assert_eq!(rcode(&with(&question, length)), expected, "{length}");
    }
}

#[test]
fn a_rate_limited_client_gets_slips_unless_it_has_a_valid_cookie() {
    let limit = RateLimit { per_second: std::num::NonZeroU32::MIN, slip: 2, v4_prefix: 24, v6_prefix: 56 };
    let table = world();
    let server = ServerSettings { limiter: Some(Arc::new(Limiter::new(limit))), ..table.server().clone() };
    let table = table.with_server(server);
    let counters = ProcessCounters::default();
    let mut out = Vec::new();
    let mut ask = |query: &[u8], transport| {
        if answered(&table, &counters, query, transport, &mut out) { text_of(&out) } else { "silence".into() }
    };
    let plain = Ask::parse("v6.alt.test. A").octets();
    assert_eq!(ask(&plain, Transport::Udp), "NOERROR aa\nv6.alt.test. 4 IN A 10.0.0.1");
    assert_eq!(ask(&plain, Transport::Udp), "silence");
    assert_eq!(ask(&plain, Transport::Udp), "NOERROR tc", "come back over TCP");
    assert!(ask(&plain, Transport::Tcp).contains("10.0.0.1"));
    let mut cookie = Ask::parse("v6.alt.test. A +1232 cookie").octets();
    assert_eq!(ask(&cookie, Transport::Udp), "silence");
    let fresh = "2464c4abcf10c957010000005cf79f111f8130c3eee29480";
    assert_eq!(ask(&cookie, Transport::Udp), format!("BADCOOKIE\n; opt 1232\n; cookie {fresh}"));
    let shown: Vec<u8> = (16..48).step_by(2).map(|at| u8::from_str_radix(&fresh[at..at + 2], 16).unwrap()).collect();
    let length = cookie.len();
    cookie[length - 13] = 28;
    cookie[length - 9] = 24;
    cookie.extend(shown);
    for _ in 0..5 {
        assert!(ask(&cookie, Transport::Udp).starts_with("NOERROR aa\nv6.alt.test. 4 IN A 10.0.0.1\n"));
    }
    assert_eq!(counters.ignored.of(IgnoreReason::RateLimited).value(), 2);
}
