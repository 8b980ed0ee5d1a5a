//! Signatures of messages with a shared key (TSIG, RFC 8945). Pure: the time is an argument.
//!
//! On ring's HMAC, whose comparison takes the same time whatever it finds. hickory-proto's TSIG does not check the time;
//! that of the crate `domain` 0.12 answers a wrong MAC with FORMERR in place of BADSIG, and signs a BADTIME answer so that
//! its receiver cannot verify it. tests/parts/transfer holds this one against dig, NSD, Knot and BIND.

use data_encoding::BASE64;
use ring::hmac;

use super::wire::{CLASS_ANY, HEADER_OCTETS, TYPE_TSIG, TsigRecord};
use crate::{
    config::{TransferKey, TsigAlgorithm},
    types::ZoneName,
};

/// By how much the receiver's clock may differ, in seconds (RFC 8945, 10).
const FUDGE: u16 = 300;

/// Octets of a signed message beyond the message: a TSIG record with the longest names and MAC.
pub(super) const TSIG_OCTETS_MAX: usize = 255 + 10 + 13 + 10 + 64 + 6 + 6;

/// The largest file of a secret that is read: the longest secret, and blanks around it.
pub const SECRET_OCTETS_MAX: u64 = 4096;

/// The shortest secret. With fewer octets it can be guessed; `tsig-keygen` and `keymgr` make 32 and more.
const SECRET_OCTETS_MIN: usize = 16;

/// The shortest MAC of any algorithm (RFC 8945, 5.2.2.1).
const MAC_OCTETS_MIN: usize = 10;

/// Errors in a TSIG record (RFC 8945, 3).
const NO_ERROR: u16 = 0;
const BAD_SIGNATURE: u16 = 16;
const BAD_KEY: u16 = 17;
const BAD_TIME: u16 = 18;
const BAD_TRUNCATION: u16 = 22;

/// A key that signs and verifies messages.
pub struct TsigKey {
    name: ZoneName,
    algorithm: TsigAlgorithm,
    key: hmac::Key,
}

impl std::fmt::Debug for TsigKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TsigKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a content is no secret. Each reads as the end of a sentence that starts with the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SecretError {
    /// It is no base64.
    #[error("it is not the secret of a key in base64, on one line and nothing else")]
    NotBase64,
    /// It is too short.
    #[error("it holds {0} octets; a secret has at least {SECRET_OCTETS_MIN} (tsig-keygen makes one)")]
    Short(usize),
}

/// Why a signature is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TsigFailure {
    /// It names another key or algorithm.
    Key,
    /// The MAC has a length that none of the algorithm may have: the message is ill-formed.
    Length,
    /// The MAC is wrong.
    Signature,
    /// It was signed too long ago, or in the future.
    Time,
    /// The MAC is right and shorter than the algorithm's, which the standard permits and this server does not accept.
    Truncation,
}

impl TsigFailure {
    /// Whether the MAC was right. Only then the error is signed (RFC 8945, 5.3.2): its receiver has the key.
    pub(super) fn sender_has_key(self) -> bool {
        matches!(self, Self::Time | Self::Truncation)
    }
}

/// The MAC of an earlier message, which the next one's covers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mac(Vec<u8>);

/// What a MAC covers besides its message (RFC 8945, 4.3).
#[derive(Clone, Copy)]
enum Covered<'m> {
    /// The request's MAC or none, and all fields of the TSIG record.
    Whole(Option<&'m Mac>),
    /// The MAC of the message before it, and its times: every message but the first of an answer (5.3.1).
    Times(&'m Mac),
}

/// The fields of a TSIG record that are signed and no part of the key.
#[derive(Clone, Copy)]
struct Fields<'m> {
    time: u64,
    fudge: u16,
    error: u16,
    other: &'m [u8],
}

impl TsigKey {
    /// The key of the configuration with the content of its file.
    ///
    /// # Errors
    /// The content is no secret.
    pub fn parse(key: &TransferKey, content: &[u8]) -> Result<Self, SecretError> {
        let secret = BASE64.decode(content.trim_ascii()).map_err(|_| SecretError::NotBase64)?;
        if secret.len() < SECRET_OCTETS_MIN {
            return Err(SecretError::Short(secret.len()));
        }
        let algorithm = match key.algorithm {
            TsigAlgorithm::HmacSha256 => hmac::HMAC_SHA256,
            TsigAlgorithm::HmacSha384 => hmac::HMAC_SHA384,
            TsigAlgorithm::HmacSha512 => hmac::HMAC_SHA512,
        };
        Ok(Self { name: key.name.clone(), algorithm: key.algorithm, key: hmac::Key::new(algorithm, &secret) })
    }

    /// Verifies a message, and returns its MAC. `request` is the MAC of the request that it answers, if it is an answer.
    pub(super) fn verify(
        &self,
        message: &[u8],
        record: &TsigRecord<'_>,
        request: Option<&Mac>,
        now: u64,
    ) -> Result<Mac, TsigFailure> {
        if record.key_name != self.name.wire() || record.algorithm != self.algorithm_name() {
            return Err(TsigFailure::Key);
        }
        let whole = self.mac_octets();
        if record.mac.len() > whole || record.mac.len() < MAC_OCTETS_MIN.max(whole / 2) {
            return Err(TsigFailure::Length);
        }
        let TsigRecord { time, fudge, error, other, .. } = *record;
        let unsigned = without_tsig(message, record).ok_or(TsigFailure::Signature)?;
        let signed = self.covered(&unsigned, Covered::Whole(request), Fields { time, fudge, error, other });
        self.compare(&signed, record.mac)?;
        // After the MAC (RFC 8945, 5.2): only then it is known that the sender has the key.
        if now.abs_diff(time) > u64::from(fudge) {
            return Err(TsigFailure::Time);
        }
        if record.mac.len() < whole {
            return Err(TsigFailure::Truncation);
        }
        Ok(Mac(record.mac.to_vec()))
    }

    /// Compares the MAC of `signed` with a received one, which may be truncated.
    fn compare(&self, signed: &[u8], mac: &[u8]) -> Result<(), TsigFailure> {
        let ours = hmac::sign(&self.key, signed);
        let start = ours.as_ref().get(..mac.len()).ok_or(TsigFailure::Length)?;
        // ring compares whole MACs only, so those of both parts are compared: in a time that says nothing about them.
        hmac::verify(&self.key, start, hmac::sign(&self.key, mac).as_ref()).map_err(|_| TsigFailure::Signature)
    }

    /// Signs a query as a secondary does. Public so that a fuzzer reaches what is behind the signature.
    #[doc(hidden)]
    pub fn sign_query(&self, message: &mut Vec<u8>, now: u64) {
        self.sign(message, None, now);
    }

    /// Signs a query, or the first message of an answer to `request`.
    pub(super) fn sign(&self, message: &mut Vec<u8>, request: Option<&Mac>, now: u64) -> Mac {
        self.append(message, Covered::Whole(request), Fields { time: now, fudge: FUDGE, error: NO_ERROR, other: &[] })
    }

    /// Signs a further message of an answer; `before` is the MAC of the message before it.
    pub(super) fn sign_further(&self, message: &mut Vec<u8>, before: &Mac, now: u64) -> Mac {
        self.append(message, Covered::Times(before), Fields { time: now, fudge: FUDGE, error: NO_ERROR, other: &[] })
    }

    /// Adds to an error message the TSIG record that says what was wrong with the request's (RFC 8945, 5.2 and 5.3.2); none
    /// where that is ill-formed (5.2.2.1).
    pub(super) fn append_failure(
        &self,
        message: &mut Vec<u8>,
        request: &TsigRecord<'_>,
        failure: TsigFailure,
        now: u64,
    ) {
        let TsigRecord { time, fudge, .. } = *request;
        let our_time = &now.to_be_bytes()[2..];
        let (error, time, other) = match failure {
            TsigFailure::Length => return,
            TsigFailure::Key => (BAD_KEY, time, &[][..]),
            TsigFailure::Signature => (BAD_SIGNATURE, time, &[][..]),
            TsigFailure::Truncation => (BAD_TRUNCATION, now, &[][..]),
            // With its own time the sender can verify the answer, and learns ours (RFC 8945, 5.2.3).
            TsigFailure::Time => (BAD_TIME, time, our_time),
        };
        let fields = Fields { time, fudge, error, other };
        if failure.sender_has_key() {
            let mac = Mac(request.mac.to_vec());
            self.append(message, Covered::Whole(Some(&mac)), fields);
        } else {
            append_record(message, (&request.key_name, &request.algorithm), &fields, &[]);
        }
    }

    /// Verifies a further message of an answer, as a secondary does.
    #[cfg(test)]
    pub(super) fn verify_further(
        &self,
        message: &[u8],
        record: &TsigRecord<'_>,
        before: &Mac,
    ) -> Result<Mac, TsigFailure> {
        let TsigRecord { time, fudge, error, other, .. } = *record;
        let unsigned = without_tsig(message, record).ok_or(TsigFailure::Signature)?;
        let signed = self.covered(&unsigned, Covered::Times(before), Fields { time, fudge, error, other });
        hmac::verify(&self.key, &signed, record.mac).map_err(|_| TsigFailure::Signature)?;
        Ok(Mac(record.mac.to_vec()))
    }

    fn append(&self, message: &mut Vec<u8>, covered: Covered<'_>, fields: Fields<'_>) -> Mac {
        let signed = self.covered(message, covered, fields);
        let mac = hmac::sign(&self.key, &signed);
        append_record(message, (self.name.wire(), &self.algorithm_name()), &fields, mac.as_ref());
        Mac(mac.as_ref().to_vec())
    }

    /// What the MAC is made of (RFC 8945, 4.3.3).
    fn covered(&self, message: &[u8], covered: Covered<'_>, fields: Fields<'_>) -> Vec<u8> {
        let mut signed = Vec::with_capacity(message.len() + TSIG_OCTETS_MAX);
        if let Covered::Whole(Some(mac)) | Covered::Times(mac) = covered {
            signed.extend(length(&mac.0));
            signed.extend(&mac.0);
        }
        signed.extend(message);
        let times = [&fields.time.to_be_bytes()[2..], &fields.fudge.to_be_bytes()].concat();
        match covered {
            Covered::Times(_) => signed.extend(times),
            Covered::Whole(_) => {
                signed.extend(self.name.wire());
                signed.extend(CLASS_ANY.to_be_bytes());
                signed.extend(0_u32.to_be_bytes());
                signed.extend(self.algorithm_name());
                signed.extend(times);
                signed.extend(fields.error.to_be_bytes());
                signed.extend(length(fields.other));
                signed.extend(fields.other);
            }
        }
        signed
    }

    fn algorithm_name(&self) -> Vec<u8> {
        let word = self.algorithm.word();
        // Every word is shorter than a label may be.
        [&[word.len() as u8], word.as_bytes(), &[0]].concat()
    }

    fn mac_octets(&self) -> usize {
        self.key.algorithm().digest_algorithm().output_len()
    }
}

/// The message as it was before it was signed: with its first identity, and without the TSIG record.
fn without_tsig(message: &[u8], record: &TsigRecord<'_>) -> Option<Vec<u8>> {
    let mut unsigned = message.get(..record.start)?.to_vec();
    unsigned.get_mut(..2)?.copy_from_slice(&record.original_id.to_be_bytes());
    add_to_count(&mut unsigned, -1)?;
    Some(unsigned)
}

/// Adds a TSIG record to a message that has its identity already.
fn append_record(message: &mut Vec<u8>, (key, algorithm): (&[u8], &[u8]), fields: &Fields<'_>, mac: &[u8]) {
    let id = message.first_chunk::<2>().copied().unwrap_or_default();
    let mut data = algorithm.to_vec();
    data.extend(&fields.time.to_be_bytes()[2..]);
    data.extend(fields.fudge.to_be_bytes());
    data.extend(length(mac));
    data.extend(mac);
    data.extend(id);
    data.extend(fields.error.to_be_bytes());
    data.extend(length(fields.other));
    data.extend(fields.other);
    message.extend(key);
    message.extend(TYPE_TSIG.to_be_bytes());
    message.extend(CLASS_ANY.to_be_bytes());
    message.extend(0_u32.to_be_bytes());
    message.extend(length(&data));
    message.extend(data);
    // A message of ours has a whole header, and far fewer records than the count can say.
    let counted = add_to_count(message, 1);
    debug_assert!(counted.is_some());
}

/// Changes the number of records in the additional section.
fn add_to_count(message: &mut [u8], change: i16) -> Option<()> {
    let count = message.get_mut(10..HEADER_OCTETS)?;
    let changed = u16::from_be_bytes([count[0], count[1]]).checked_add_signed(change)?;
    count.copy_from_slice(&changed.to_be_bytes());
    Some(())
}

/// The length of a field, before it. Every field of a message is shorter than a message.
fn length(octets: &[u8]) -> [u8; 2] {
    (octets.len() as u16).to_be_bytes()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::{
        super::wire::{Parsed, TYPE_SOA, parse},
        *,
    };

    pub(in super::super) const NOW: u64 = 1_795_380_000;

    pub(in super::super) fn key(name: &str) -> TsigKey {
        let name = ZoneName::parse(name).unwrap();
        let key = TransferKey { name, algorithm: TsigAlgorithm::HmacSha256, secret_file: "/secret".into() };
        TsigKey::parse(&key, b"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n").unwrap()
    }

    fn query() -> Vec<u8> {
        let head = [0xAB, 0xCD, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        [&head[..], b"\x01a\0", &TYPE_SOA.to_be_bytes(), &[0, 1]].concat()
    }

    fn verified(key: &TsigKey, message: &[u8], request: Option<&Mac>, now: u64) -> Result<Mac, TsigFailure> {
        let Parsed::Message(parsed) = parse(message) else { panic!("{message:?}") };
        key.verify(message, &parsed.tsig.unwrap(), request, now)
    }

    #[test]
    fn a_signature_holds_for_five_minutes() {
        let key = key("k.example");
        let mut message = query();
        let mac = key.sign(&mut message, None, NOW);
        for now in [NOW - 300, NOW, NOW + 300] {
            assert_eq!(verified(&key, &message, None, now), Ok(mac.clone()));
        }
        for now in [NOW - 301, NOW + 301, 0, u64::MAX] {
            assert_eq!(verified(&key, &message, None, now), Err(TsigFailure::Time));
        }
    }

    #[test]
    fn another_key_secret_or_request_is_refused() {
        let ours = key("k.example");
        let mut message = query();
        let mac = ours.sign(&mut message, None, NOW);
        assert_eq!(verified(&key("other.example"), &message, None, NOW), Err(TsigFailure::Key));
        assert_eq!(verified(&ours, &message, Some(&mac), NOW), Err(TsigFailure::Signature));
        let same_name = TransferKey {
            name: ours.name.clone(),
            algorithm: TsigAlgorithm::HmacSha256,
            secret_file: "/secret".into(),
        };
        let other = TsigKey::parse(&same_name, BASE64.encode(&[7; 32]).as_bytes()).unwrap();
        assert_eq!(verified(&other, &message, None, NOW), Err(TsigFailure::Signature));
        let longer = TransferKey { algorithm: TsigAlgorithm::HmacSha512, ..same_name };
        let longer = TsigKey::parse(&longer, BASE64.encode(&[7; 32]).as_bytes()).unwrap();
        assert_eq!(verified(&longer, &message, None, NOW), Err(TsigFailure::Key), "another algorithm");
    }

    #[test]
    fn an_error_says_what_is_wrong_and_only_a_wrong_time_is_signed() {
        let key = key("k.example");
        let mut message = query();
        let mac = key.sign(&mut message, None, NOW);
        let Parsed::Message(parsed) = parse(&message) else { panic!() };
        let record = parsed.tsig.unwrap();
        for (failure, number) in [
            (TsigFailure::Signature, 16),
            (TsigFailure::Key, 17),
            (TsigFailure::Time, 18),
            (TsigFailure::Truncation, 22),
        ] {
            let mut answer = query();
            key.append_failure(&mut answer, &record, failure, NOW + 1000);
            let Parsed::Message(parsed) = parse(&answer) else { panic!() };
            let said = parsed.tsig.clone().unwrap();
            assert_eq!((said.error, said.original_id, &said.key_name), (number, 0xABCD, &record.key_name));
            // A receiver whose clock is right; that of a message with a wrong time is not.
            let (is_signed, clock, other) = match failure {
                TsigFailure::Time => (true, NOW, (NOW + 1000).to_be_bytes()[2..].to_vec()),
                TsigFailure::Truncation => (true, NOW + 1000, Vec::new()),
                _ => (false, NOW, Vec::new()),
            };
            assert_eq!((said.mac.is_empty(), said.other.to_vec()), (!is_signed, other));
            assert_eq!(verified(&key, &answer, Some(&mac), clock).is_ok(), is_signed, "{failure:?}");
        }
    }

    /// A signed message whose MAC has so many octets: cut, or with zeros behind it.
    pub(in super::super) fn with_mac_of(key: &TsigKey, message: &[u8], octets: usize) -> Vec<u8> {
        let mut mac = key.sign(&mut message.to_vec(), None, NOW).0;
        mac.resize(octets, 0);
        let mut message = message.to_vec();
        let fields = Fields { time: NOW, fudge: FUDGE, error: NO_ERROR, other: &[] };
        append_record(&mut message, (key.name.wire(), &key.algorithm_name()), &fields, &mac);
        message
    }

    /// RFC 8945, 5.2.2.1 and 5.2.4.
    #[test]
    fn a_mac_has_its_algorithms_length() {
        let of = |algorithm, octets: usize| {
            let name = ZoneName::parse("k.example").unwrap();
            let key = TransferKey { name, algorithm, secret_file: "/secret".into() };
            let key = TsigKey::parse(&key, BASE64.encode(&[7; 64]).as_bytes()).unwrap();
            verified(&key, &with_mac_of(&key, &query(), octets), None, NOW).map(|_| ())
        };
        for (algorithm, whole) in
            [(TsigAlgorithm::HmacSha256, 32), (TsigAlgorithm::HmacSha384, 48), (TsigAlgorithm::HmacSha512, 64)]
        {
            assert_eq!(of(algorithm, whole), Ok(()));
            for octets in [whole / 2, whole - 1] {
                assert_eq!(of(algorithm, octets), Err(TsigFailure::Truncation), "{octets} of {whole}");
            }
            for octets in [0, 1, 9, whole / 2 - 1, whole + 1, 65] {
                assert_eq!(of(algorithm, octets), Err(TsigFailure::Length), "{octets} of {whole}");
            }
        }
        let ours = key("k.example");
        let mut wrong = with_mac_of(&ours, &query(), 20);
        let at = wrong.len() - 7;
        wrong[at] ^= 1;
        assert_eq!(verified(&ours, &wrong, None, NOW), Err(TsigFailure::Signature), "before its length counts");
        assert_eq!(verified(&ours, &with_mac_of(&ours, &query(), 20), None, NOW + 301), Err(TsigFailure::Time));
    }

    #[test]
    fn a_secret_is_base64_and_not_short() {
        let of = |content: &[u8]| {
            let name = ZoneName::parse("k").unwrap();
            TsigKey::parse(
                &TransferKey { name, algorithm: TsigAlgorithm::HmacSha384, secret_file: "/s".into() },
                content,
            )
            .map(|key| format!("{key:?}"))
        };
        assert_eq!(of(b" MDEyMzQ1Njc4OWFiY2RlZg== \r\n").unwrap(), "TsigKey { name: k., .. }", "no secret is printed");
        assert_eq!(of(b"MDEyMzQ1"), Err(SecretError::Short(6)));
        assert_eq!(of(b""), Err(SecretError::Short(0)));
        assert_eq!(of(b"key \"k\" { secret \"MDEy\"; };"), Err(SecretError::NotBase64));
        assert_eq!(of(b"\xff"), Err(SecretError::NotBase64));
    }

    proptest! {
        #[test]
        fn every_changed_octet_is_noticed(at in 0..100_usize, bit in 0..8_u32) {
            let key = key("k.example");
            let mut message = query();
            key.sign(&mut message, None, NOW);
            let at = at % message.len();
            message[at] ^= 1 << bit;
            if let Parsed::Message(parsed) = parse(&message)
                && let Some(record) = parsed.tsig
                // The identity is sent again, as the original one, and letters have no case.
                && at > 1
                && !(message[at].is_ascii_alphabetic() && bit == 5)
            {
                prop_assert!(key.verify(&message, &record, None, NOW).is_err());
            }
        }
    }
}
