//! Messages to a hidden primary: a stranger's, a secondary's with a good signature, and the answer to a NOTIFY.
//!
//! What is not signed gives away no record and acknowledges nothing; what is signed is answered, whatever is in it.

#![no_main]

use std::sync::{Arc, LazyLock};

use alternator_dns::{
    config::{Transfer, TransferKey, TsigAlgorithm},
    metrics::Transport,
    table::ZoneTable,
    transfer::{Sender, TransferAnswer, Transfers, TsigKey, Wanted, is_notify_reply},
    types::ZoneName,
};
use alternator_dns_fuzz::zones;
use arc_swap::ArcSwap;
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_795_380_000;
const SECONDARY: [u8; 4] = [192, 0, 2, 1];

static PRIMARY: LazyLock<(Transfers, ZoneTable, Arc<TsigKey>)> = LazyLock::new(|| {
    let name = |text| ZoneName::parse(text).expect("a name");
    let key = TransferKey { name: name("k"), algorithm: TsigAlgorithm::HmacSha256, secret_file: "/secret".into() };
    let tsig = TsigKey::parse(&key, b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").expect("a secret");
    let tsig = Arc::new(tsig);
    let transfer = Transfer { secondaries: vec![(SECONDARY, 53).into()], key, catalog: Some(name("catalog.invalid")) };
    let transfers = Transfers::new(Arc::default());
    let table = zones();
    let in_force = Arc::new(ArcSwap::new(tsig.clone()));
    transfers.replace(Some(Wanted { transfer: &transfer, key: in_force, listen: &[] }), &table, |_| None, 1);
    (transfers, table, tsig)
});

/// The messages that answer; `None`: it is not about transfers.
fn answers(message: &[u8], transport: Transport) -> Option<Vec<Vec<u8>>> {
    let (transfers, table, _) = &*PRIMARY;
    let mut out = Vec::new();
    let sender = Sender { address: SECONDARY.into(), transport, is_old_tls: false, now: NOW };
    match transfers.answer(message, &sender, table, &mut out) {
        TransferAnswer::None => None,
        TransferAnswer::Reply => Some(vec![out]),
        TransferAnswer::Messages(mut messages) => {
            assert_eq!(messages.head()[..2], message[..2]);
            let mut all = Vec::new();
            while messages.next(NOW, &mut out) {
                all.push(out.clone());
            }
            Some(all)
        }
    }
}

fuzz_target!(|message: &[u8]| {
    let key = &PRIMARY.2;
    for transport in [Transport::Udp, Transport::Tcp] {
        for answer in answers(message, transport).unwrap_or_default() {
            assert_eq!((&answer[..2], &answer[6..8]), (&message[..2], &[0, 0][..]), "no record without a signature");
        }
    }
    assert!(!is_notify_reply(message, key, NOW), "an acknowledgement is signed");
    if message.len() < 12 || message[10..12] == [0xFF; 2] {
        return;
    }
    let mut signed = message.to_vec();
    key.sign_query(&mut signed, NOW);
    for transport in [Transport::Udp, Transport::Tcp] {
        for answer in answers(&signed, transport).unwrap_or_default() {
            assert!((12..=16_384).contains(&answer.len()) && answer[..2] == signed[..2]);
        }
    }
    assert!(!is_notify_reply(&signed, key, NOW), "it covers the MAC of the notification");
});
