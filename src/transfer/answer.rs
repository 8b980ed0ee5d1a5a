//! Answers secondaries: SOA, AXFR (RFC 5936) and IXFR (RFC 1995), allowed by address and signature.

use std::{net::IpAddr, sync::Arc, time::Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    primary::{Primary, Transfers},
    progress::is_current,
    render::MessageWriter,
    tsig::{Mac, TSIG_OCTETS_MAX, TsigFailure, TsigKey},
    wire::{CLASS_IN, Concern, Message, Parsed, ReplyCode, TYPE_AXFR, TYPE_IXFR, TYPE_SOA, concern, parse},
    zone::ZoneContent,
};
use crate::{
    metrics::{TransferRefusal, TransferType, Transport},
    table::ZoneTable,
};

/// Octets of one message of a transfer. Names are compressed by pointers that reach no further.
const MESSAGE_OCTETS_MAX: usize = 16 * 1024;

/// Octets of a record of ours at most: an owner, and an SOA with two names.
const RECORD_OCTETS_MAX: usize = 255 + 10 + 255 + 255 + 20;

/// The sender of a message, and the time.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Its address.
    pub address: IpAddr,
    /// What carried the message.
    pub transport: Transport,
    /// Whether that is TLS before version 1.3.
    pub is_old_tls: bool,
    /// The unix time in seconds.
    pub now: u64,
}

/// What answers a message.
#[derive(Debug)]
pub enum TransferAnswer {
    /// It is none about transfers.
    None,
    /// One message, which is in `out`.
    Reply,
    /// Several messages.
    Messages(TransferMessages),
}

/// The messages of a transfer, made one by one while the connection takes them.
#[derive(Debug)]
pub struct TransferMessages {
    content: ZoneContent,
    /// The record that comes next; the SOA comes again at the end.
    next: usize,
    request: RequestCopy,
    signer: Signer,
    /// Where it is recorded that the secondary has the zone.
    transfers: Transfers,
    secondary: IpAddr,
    kind: TransferType,
    _slot: OwnedSemaphorePermit,
}

/// What each message repeats of the request.
#[derive(Debug)]
struct RequestCopy {
    id: u16,
    flags: [u8; 2],
    question: Vec<u8>,
    has_opt: bool,
}

/// Signs the messages of one answer.
#[derive(Debug)]
struct Signer {
    /// One key for all of them, whatever the file says meanwhile.
    key: Arc<TsigKey>,
    request: Mac,
    before: Option<Mac>,
}

/// A request whose sender and signature are known to be good.
struct Verified<'r> {
    transfers: &'r Transfers,
    primary: &'r Primary,
    key: &'r Arc<TsigKey>,
    secondary: usize,
    request: &'r Message<'r>,
    mac: Mac,
    sender: &'r Sender,
}

impl Transfers {
    /// Answers a message about transfers into `out`: one that asks for a transfer, or has a TSIG record. Replies of several
    /// messages are given only over TCP and TLS.
    pub fn answer(&self, message: &[u8], sender: &Sender, table: &ZoneTable, out: &mut Vec<u8>) -> TransferAnswer {
        let loaded = self.load();
        let Some(primary) = loaded.as_deref() else { return TransferAnswer::None };
        if !matches!(sender.transport, Transport::Udp | Transport::Tcp | Transport::Tls) {
            return TransferAnswer::None;
        }
        let Some(concern) = concern(message) else { return TransferAnswer::None };
        let Some(secondary) = primary.secondary(sender.address) else {
            // It is answered, refused and limited like everyone.
            if concern == Concern::Transfer {
                self.refuse(TransferRefusal::Address);
            }
            return TransferAnswer::None;
        };
        let Parsed::Message(request) = parse(message) else {
            self.refuse(TransferRefusal::Malformed);
            *out = malformed(message);
            return TransferAnswer::Reply;
        };
        if !matches!(request.query_type, TYPE_SOA | TYPE_AXFR | TYPE_IXFR) {
            return TransferAnswer::None;
        }
        let Some(tsig) = &request.tsig else {
            return self.unsigned(TransferRefusal::Unsigned, &request, out);
        };
        let key = primary.key.load_full();
        match key.verify(message, tsig, None, sender.now) {
            Ok(mac) => Verified { transfers: self, primary, key: &key, secondary, request: &request, mac, sender }
                .answer(table, out),
            Err(failure) => {
                let (reason, code) = refusal(failure);
                self.refuse(reason);
                let reply = MessageWriter::reply(&request, code, &[]).finish(request.has_opt);
                out.clone_from(&reply);
                key.append_failure(out, tsig, failure, sender.now);
                // The sender of a datagram may be forged: what it makes us send is no larger than what it sent, unless it has
                // the key.
                if sender.transport == Transport::Udp && !failure.sender_has_key() && out.len() > message.len() {
                    *out = reply;
                }
                TransferAnswer::Reply
            }
        }
    }

    fn unsigned(&self, reason: TransferRefusal, request: &Message<'_>, out: &mut Vec<u8>) -> TransferAnswer {
        self.refuse(reason);
        *out = MessageWriter::reply(request, ReplyCode::Refused, &[]).finish(request.has_opt);
        TransferAnswer::Reply
    }

    /// A secondary has fetched a zone, if it still is one.
    fn has(&self, content: &ZoneContent, secondary: IpAddr) {
        if let Some(number) = self.load().as_ref().and_then(|primary| primary.secondary(secondary)) {
            self.progress().has(&content.apex, number, content.serial, Instant::now());
        }
    }

    fn refuse(&self, reason: TransferRefusal) {
        self.counters().refused.of(reason).increment();
    }
}

/// How a TSIG record that is not accepted is counted and answered (RFC 8945, 5.2).
fn refusal(failure: TsigFailure) -> (TransferRefusal, ReplyCode) {
    match failure {
        TsigFailure::Key => (TransferRefusal::BadKey, ReplyCode::NotAuth),
        TsigFailure::Length => (TransferRefusal::Malformed, ReplyCode::FormErr),
        TsigFailure::Signature | TsigFailure::Truncation => (TransferRefusal::BadSignature, ReplyCode::NotAuth),
        TsigFailure::Time => (TransferRefusal::BadTime, ReplyCode::NotAuth),
    }
}

/// FORMERR to a message of which only the header is known to be there.
fn malformed(message: &[u8]) -> Vec<u8> {
    let id = message.first_chunk::<2>().copied().unwrap_or_default();
    [&id[..], &[0x80, ReplyCode::FormErr as u8, 0, 0, 0, 0, 0, 0, 0, 0]].concat()
}

impl Verified<'_> {
    fn answer(&self, table: &ZoneTable, out: &mut Vec<u8>) -> TransferAnswer {
        let name = self.request.name();
        let refusal = match (self.request.query_type, self.sender.transport) {
            _ if self.request.class != CLASS_IN => Some((TransferRefusal::NoZone, ReplyCode::NotAuth)),
            (TYPE_AXFR, Transport::Udp) => Some((TransferRefusal::Udp, ReplyCode::Refused)),
            // RFC 9103 asks for 1.3.
            (TYPE_AXFR | TYPE_IXFR, _) if self.sender.is_old_tls => Some((TransferRefusal::OldTls, ReplyCode::Refused)),
            _ => None,
        };
        if let Some((reason, code)) = refusal {
            return self.refuse(reason, code, out);
        }
        let catalog = self.primary.catalog.as_ref().filter(|catalog| catalog.content.apex.wire() == name);
        let content = match (catalog, table.zone_of(&name)) {
            (Some(catalog), _) => Some(catalog.content.clone()),
            (None, Some(entry)) => ZoneContent::of_zone(table, entry),
            (None, None) => return self.refuse(TransferRefusal::NoZone, ReplyCode::NotAuth, out),
        };
        match content {
            Some(content) => self.give(content, out),
            None => self.refuse(TransferRefusal::NotReady, ReplyCode::ServFail, out),
        }
    }

    fn refuse(&self, reason: TransferRefusal, code: ReplyCode, out: &mut Vec<u8>) -> TransferAnswer {
        self.transfers.refuse(reason);
        self.sign(MessageWriter::reply(self.request, code, &[]).finish(self.request.has_opt), out)
    }

    fn give(&self, content: ZoneContent, out: &mut Vec<u8>) -> TransferAnswer {
        let kind = match self.request.query_type {
            TYPE_AXFR => TransferType::Axfr,
            TYPE_IXFR => TransferType::Ixfr,
            _ => TransferType::Soa,
        };
        let is_current =
            kind == TransferType::Ixfr && self.request.serial.is_some_and(|has| is_current(has, content.serial));
        self.note_serial(kind, &content);
        // Over UDP the SOA alone says that the rest has to be fetched over TCP (RFC 1995, 4).
        if kind == TransferType::Soa || is_current || self.sender.transport == Transport::Udp {
            self.transfers.counters().given.of(kind).increment();
            let mut writer = MessageWriter::reply(self.request, ReplyCode::NoError, content.apex.wire());
            writer.answer(content.soa());
            return self.sign(writer.finish(self.request.has_opt), out);
        }
        let Ok(slot) = self.transfers.slots().clone().try_acquire_owned() else {
            return self.refuse(TransferRefusal::Busy, ReplyCode::ServFail, out);
        };
        let Message { id, flags, question, has_opt, .. } = *self.request;
        TransferAnswer::Messages(TransferMessages {
            content,
            next: 0,
            request: RequestCopy { id, flags, question: question.to_vec(), has_opt },
            signer: Signer { key: self.key.clone(), request: self.mac.clone(), before: None },
            transfers: self.transfers.clone(),
            secondary: self.sender.address,
            kind,
            _slot: slot,
        })
    }

    /// Records what the question says about what the secondary has.
    fn note_serial(&self, kind: TransferType, content: &ZoneContent) {
        let now = Instant::now();
        let ZoneContent { apex, serial: ours, .. } = content;
        let mut progress = self.transfers.progress();
        progress.observe_newer(apex, *ours, now);
        match (kind, self.request.serial) {
            (TransferType::Soa, _) => progress.asked(apex, self.secondary, *ours, now),
            (TransferType::Ixfr, Some(serial)) => progress.has(apex, self.secondary, serial, now),
            (TransferType::Axfr | TransferType::Ixfr, _) => {}
        }
    }

    fn sign(&self, mut message: Vec<u8>, out: &mut Vec<u8>) -> TransferAnswer {
        self.key.sign(&mut message, Some(&self.mac), self.sender.now);
        *out = message;
        TransferAnswer::Reply
    }
}

impl TransferMessages {
    /// Header and question of the messages, as if one had all the records: what a log says of the transfer.
    pub fn head(&self) -> Vec<u8> {
        let mut head = MessageWriter::reply(&self.request.message(), ReplyCode::NoError, &[]).finish(false);
        let count = u16::try_from(self.content.records.len() + 1).unwrap_or(u16::MAX);
        head[6..8].copy_from_slice(&count.to_be_bytes());
        head
    }

    /// Writes the next message into `out`; `false`: there is none. `now` is the unix time in seconds.
    pub fn next(&mut self, now: u64, out: &mut Vec<u8>) -> bool {
        let records = &self.content.records;
        if self.next > records.len() {
            // The connection has taken the last message.
            self.transfers.has(&self.content, self.secondary);
            return false;
        }
        let request = self.request.message();
        let mut writer = MessageWriter::reply(&request, ReplyCode::NoError, self.content.apex.wire());
        while self.next <= records.len() && writer.len() + RECORD_OCTETS_MAX + TSIG_OCTETS_MAX <= MESSAGE_OCTETS_MAX {
            writer.answer(records.get(self.next).unwrap_or(self.content.soa()));
            self.next += 1;
        }
        *out = writer.finish(request.has_opt);
        self.signer.sign(out, now);
        if self.next > records.len() {
            self.transfers.counters().given.of(self.kind).increment();
        }
        true
    }
}

impl RequestCopy {
    fn message(&self) -> Message<'_> {
        let Self { id, flags, ref question, has_opt } = *self;
        Message { id, flags, question, query_type: TYPE_AXFR, class: CLASS_IN, has_opt, serial: None, tsig: None }
    }
}

impl Signer {
    /// Signs each message, although some could stay unsigned (RFC 8945, 5.3.1): they are few.
    fn sign(&mut self, message: &mut Vec<u8>, now: u64) {
        let key = &self.key;
        self.before = Some(match &self.before {
            None => key.sign(message, Some(&self.request), now),
            Some(before) => key.sign_further(message, before, now),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU8, time::Instant};

    use arc_swap::ArcSwap;
    use hickory_server::proto::{op::Message as ParsedMessage, serialize::binary::BinDecodable as _};

    use super::{
        super::{
            Wanted,
            tsig::tests::{NOW, key, with_mac_of},
        },
        *,
    };
    use crate::{
        config::{Transfer, TransferKey, TsigAlgorithm},
        table::{Knowledge, ZoneEntry, ZoneSettings},
        types::{NodeSet, ZoneName, ZoneState},
    };

    const SECONDARY: &str = "192.0.2.1";

    fn name(text: &str) -> ZoneName {
        ZoneName::parse(text).unwrap()
    }

    /// A zone with a node, one that waits, and many more for the catalog.
    fn table() -> ZoneTable {
        let zone = |text: &str| Arc::new(ZoneEntry::new(name(text), ZoneSettings::example(), 1000));
        let live = zone("a.example");
        let nodes = NodeSet::new(["10.0.0.1".parse().unwrap()]).unwrap();
        live.learn(&Knowledge::up(&nodes, ZoneState::Live), 2000);
        let many = (0..1000).map(|number| zone(&format!("z{number}.example")));
        ZoneTable::new([live, zone("waits.example")].into_iter().chain(many))
    }

    fn transfers(table: &ZoneTable) -> Transfers {
        let transfers = Transfers::new(Arc::default());
        let transfer = Transfer {
            secondaries: vec![format!("{SECONDARY}:53").parse().unwrap()],
            key: TransferKey { name: name("k"), algorithm: TsigAlgorithm::HmacSha256, secret_file: "/secret".into() },
            catalog: Some(name("catalog.invalid")),
        };
        let key = Arc::new(ArcSwap::from_pointee(key("k")));
        transfers.replace(Some(Wanted { transfer: &transfer, key, listen: &[] }), table, |_| None, 1000);
        transfers.progress().observe(&name("a.example"), 2000, Instant::now());
        transfers
    }

    /// A query, with the serial of the SOA that the sender has.
    fn query(zone: &str, query_type: u16, has: Option<u32>) -> Vec<u8> {
        let authorities = u8::from(has.is_some());
        let mut message = vec![0xAB, 0xCD, 0, 0, 0, 1, 0, 0, 0, authorities, 0, 0];
        message.extend(name(zone).wire());
        message.extend([query_type.to_be_bytes(), CLASS_IN.to_be_bytes()].concat());
        if let Some(serial) = has {
            message.extend(b"\xC0\x0C\0\x06\0\x01\0\0\0\0\0\x16\0\0");
            message.extend(serial.to_be_bytes());
            message.extend([0; 16]);
        }
        message
    }

    fn sender(address: &str, transport: Transport) -> Sender {
        Sender { address: address.parse().unwrap(), transport, is_old_tls: false, now: NOW }
    }

    /// The messages that answer a signed query, each verified.
    fn signed(transfers: &Transfers, table: &ZoneTable, message: Vec<u8>, transport: Transport) -> Vec<ParsedMessage> {
        signed_from(&sender(SECONDARY, transport), transfers, table, message)
    }

    fn signed_from(
        sender: &Sender,
        transfers: &Transfers,
        table: &ZoneTable,
        mut message: Vec<u8>,
    ) -> Vec<ParsedMessage> {
        let key = key("k");
        let request = key.sign(&mut message, None, NOW);
        let mut out = Vec::new();
        let mut replies = Vec::new();
        match transfers.answer(&message, sender, table, &mut out) {
            TransferAnswer::None => panic!("not answered"),
            TransferAnswer::Reply => replies.push(out),
            TransferAnswer::Messages(mut messages) => {
                while messages.next(NOW, &mut out) {
                    replies.push(out.clone());
                }
            }
        }
        let mut before: Option<Mac> = None;
        for reply in &replies {
            let Parsed::Message(parsed) = parse(reply) else { panic!() };
            let record = parsed.tsig.unwrap();
            let verified = match &before {
                None => key.verify(reply, &record, Some(&request), NOW),
                Some(before) => key.verify_further(reply, &record, before),
            };
            before = Some(verified.unwrap());
        }
        replies.iter().map(|reply| ParsedMessage::from_bytes(reply).unwrap()).collect()
    }

    fn refusals(transfers: &Transfers, reason: TransferRefusal) -> u64 {
        transfers.counters().refused.of(reason).value()
    }

    #[test]
    fn a_zone_is_its_soa_its_records_and_its_soa() {
        let table = table();
        let transfers = transfers(&table);
        for (query_type, has) in [(TYPE_AXFR, None), (TYPE_IXFR, Some(1999)), (TYPE_IXFR, None)] {
            let replies = signed(&transfers, &table, query("A.example", query_type, has), Transport::Tcp);
            let records: Vec<_> = replies[0].answers.iter().map(ToString::to_string).collect();
            let soa = "a.example. 4 IN SOA a.example. hostmaster.a.example. 2000 60 10 1209600 4";
            assert_eq!(
                (replies.len(), records),
                (1, vec![soa.to_owned(), "a.example. 4 IN A 10.0.0.1".into(), soa.into()])
            );
        }
        let state = transfers.secondaries(&name("a.example"), Instant::now());
        assert_eq!(state[0].state.serial, Some(2000));
        assert!(state[0].state.lag.is_zero());
    }

    #[test]
    fn the_soa_alone_answers_where_nothing_is_newer_and_over_udp() {
        let table = table();
        let transfers = transfers(&table);
        for (query_type, has, transport) in [
            (TYPE_SOA, None, Transport::Udp),
            (TYPE_SOA, None, Transport::Tcp),
            (TYPE_IXFR, Some(2000), Transport::Tcp),
            (TYPE_IXFR, Some(2001), Transport::Tls),
            (TYPE_IXFR, Some(1), Transport::Udp),
        ] {
            let replies = signed(&transfers, &table, query("a.example", query_type, has), transport);
            assert_eq!((replies.len(), replies[0].answers.len()), (1, 1), "{query_type} {has:?}");
        }
    }

    #[test]
    fn a_catalog_takes_several_messages_each_signed() {
        let table = table();
        let transfers = transfers(&table);
        let mut asked = query("catalog.invalid", TYPE_AXFR, None);
        key("k").sign(&mut asked, None, NOW);
        let answer = transfers.answer(&asked, &sender(SECONDARY, Transport::Tcp), &table, &mut Vec::new());
        let TransferAnswer::Messages(messages) = answer else { panic!() };
        assert_eq!(messages.head()[6..8], (2 + 2 + 1002_u16).to_be_bytes(), "a log says how many records it has");
        let replies = signed(&transfers, &table, query("catalog.invalid", TYPE_AXFR, None), Transport::Tcp);
        let records: usize = replies.iter().map(|reply| reply.answers.len()).sum();
        assert!((4..10).contains(&replies.len()), "{}", replies.len());
        assert_eq!(records, 2 + 2 + 1002, "SOAs, NS and version, zones");
    }

    #[test]
    fn what_cannot_be_given_is_refused_with_its_reason() {
        use TransferRefusal::{Busy, NoZone, NotReady, Udp};
        let table = table();
        let transfers = transfers(&table);
        let tcp = Transport::Tcp;
        for (zone, query_type, transport, reason, rcode) in [
            ("waits.example", TYPE_AXFR, tcp, NotReady, "Server Failure"),
            ("waits.example", TYPE_SOA, tcp, NotReady, "Server Failure"),
            ("none.example", TYPE_AXFR, tcp, NoZone, "NotAuth"),
            ("x.a.example", TYPE_AXFR, tcp, NoZone, "NotAuth"),
            ("a.example", TYPE_AXFR, Transport::Udp, Udp, "Refused"),
        ] {
            let before = refusals(&transfers, reason);
            let replies = signed(&transfers, &table, query(zone, query_type, None), transport);
            let code = format!("{:?}", replies[0].metadata.response_code);
            assert_eq!(code.to_lowercase(), rcode.replace("Server Failure", "ServFail").to_lowercase(), "{zone}");
            assert!(replies[0].answers.is_empty());
            assert_eq!(refusals(&transfers, reason), before + 1);
        }
        for (query_type, answers) in [(TYPE_AXFR, 0), (TYPE_IXFR, 0), (TYPE_SOA, 1)] {
            let from = Sender { is_old_tls: true, ..sender(SECONDARY, Transport::Tls) };
            let replies = signed_from(&from, &transfers, &table, query("a.example", query_type, None));
            assert_eq!((replies.len(), replies[0].answers.len()), (1, answers), "TLS 1.2");
        }
        assert_eq!(refusals(&transfers, TransferRefusal::OldTls), 2);
        let all = transfers.slots().clone().try_acquire_many_owned(64).unwrap();
        let replies = signed(&transfers, &table, query("a.example", TYPE_AXFR, None), tcp);
        assert_eq!((replies[0].answers.len(), refusals(&transfers, Busy)), (0, 1));
        drop(all);
        assert_eq!(signed(&transfers, &table, query("a.example", TYPE_AXFR, None), tcp)[0].answers.len(), 3);
    }

    #[test]
    fn only_secondaries_with_the_key_get_anything() {
        use TransferRefusal::{Address, BadKey, BadSignature, BadTime, Malformed, Unsigned};
        let table = table();
        let transfers = transfers(&table);
        let plain = query("a.example", TYPE_AXFR, None);
        let with = |name: &str, now: u64| {
            let mut message = plain.clone();
            key(name).sign(&mut message, None, now);
            message
        };
        let mut changed = with("k", NOW);
        changed[13] = b'b';
        let mut cut = with("k", NOW);
        cut.pop();
        for (message, from, reason, code) in [
            (plain.clone(), SECONDARY, Unsigned, ReplyCode::Refused),
            (with("other", NOW), SECONDARY, BadKey, ReplyCode::NotAuth),
            (changed, SECONDARY, BadSignature, ReplyCode::NotAuth),
            (with("k", NOW - 301), SECONDARY, BadTime, ReplyCode::NotAuth),
            (cut, SECONDARY, Malformed, ReplyCode::FormErr),
        ] {
            let mut out = Vec::new();
            let answer = transfers.answer(&message, &sender(from, Transport::Tcp), &table, &mut out);
            assert!(matches!(answer, TransferAnswer::Reply), "{reason:?}");
            assert_eq!((out[3] & 0x0F, out[6..8].to_vec()), (code as u8, vec![0, 0]), "{reason:?}");
            assert_eq!(refusals(&transfers, reason), 1);
        }
        let answer = |message: &[u8], transport| {
            let mut out = Vec::new();
            matches!(transfers.answer(message, &sender(SECONDARY, transport), &table, &mut out), TransferAnswer::None)
        };
        assert!(answer(&query("a.example", 1, None), Transport::Tcp), "an ordinary query is for others");
        let mut address = query("a.example", 1, None);
        key("k").sign(&mut address, None, NOW);
        assert!(answer(&address, Transport::Udp), "a signed one too");
        for message in [&plain, &with("k", NOW), &address] {
            let from = sender("192.0.2.9", Transport::Udp);
            let answer = transfers.answer(message, &from, &table, &mut Vec::new());
            assert!(
                matches!(answer, TransferAnswer::None),
                "a stranger is answered, refused and limited like everyone"
            );
        }
        assert_eq!(refusals(&transfers, Address), 2);
        let mut out = Vec::new();
        let other = with("other", NOW);
        transfers.answer(&other, &sender(SECONDARY, Transport::Udp), &table, &mut out);
        assert!(out.len() <= other.len(), "{} octets for {}", out.len(), other.len());
        assert!(answer(&plain, Transport::Https) && answer(&plain, Transport::Quic));
    }

    /// RFC 8945, 5.2.2.1 and 5.2.4.
    #[test]
    fn a_mac_of_an_impossible_length_is_a_format_error_and_a_truncated_one_is_refused() {
        use TransferRefusal::{BadSignature, Malformed};
        let table = table();
        let transfers = transfers(&table);
        for (octets, reason, code, error) in [
            (0, Malformed, ReplyCode::FormErr, None),
            (15, Malformed, ReplyCode::FormErr, None),
            (33, Malformed, ReplyCode::FormErr, None),
            (16, BadSignature, ReplyCode::NotAuth, Some(22)),
            (31, BadSignature, ReplyCode::NotAuth, Some(22)),
        ] {
            let message = with_mac_of(&key("k"), &query("a.example", TYPE_SOA, None), octets);
            for transport in [Transport::Udp, Transport::Tcp] {
                let before = refusals(&transfers, reason);
                let mut out = Vec::new();
                let answer = transfers.answer(&message, &sender(SECONDARY, transport), &table, &mut out);
                assert!(matches!(answer, TransferAnswer::Reply));
                let Parsed::Message(reply) = parse(&out) else { panic!() };
                assert_eq!((reply.reply_code(), refusals(&transfers, reason)), (code as u8, before + 1), "{octets}");
                assert_eq!(reply.tsig.map(|tsig| tsig.error), error, "{octets}");
            }
        }
    }

    #[test]
    fn nothing_is_given_while_it_is_off() {
        let table = table();
        let transfers = Transfers::new(Arc::default());
        let mut message = query("a.example", TYPE_AXFR, None);
        key("k").sign(&mut message, None, NOW);
        let answer = transfers.answer(&message, &sender(SECONDARY, Transport::Tcp), &table, &mut Vec::new());
        assert!(matches!(answer, TransferAnswer::None) && !transfers.is_on());
    }

    #[test]
    fn the_serial_grows_with_what_only_secondaries_see() {
        let table = table();
        let entry = table.zone(&name("a.example")).unwrap();
        let serial = || entry.answers().serial;
        let settings = ZoneSettings { max_addresses: NonZeroU8::MIN, ..ZoneSettings::example() };
        entry.configure(&settings, 3000);
        assert_eq!(serial(), 3000);
        entry.configure(&ZoneSettings { subdomains: true, ..settings.clone() }, 4000);
        assert_eq!(serial(), 4000);
        entry.configure(&ZoneSettings { subdomains: true, ..settings }, 5000);
        assert_eq!(serial(), 4000, "nothing has changed");
    }
}
