//! A certificate of a node: whatever it sends, the reasons against it are short sentences.

#![no_main]

use alternator_dns::net::certificate::{CertificateFacts, expires_soon};
use libfuzzer_sys::fuzz_target;

/// Longer than every sentence with the longest names that it repeats.
const SENTENCE_CHARS_MAX: usize = 1000;

fuzz_target!(|der: &[u8]| {
    let Some(facts) = CertificateFacts::parse(der) else { return };
    let defects = [
        facts.own_defect(),
        facts.key_defect(),
        facts.authority_defect(),
        facts.name_defect(),
        facts.time_defect(0),
        facts.time_defect(i64::MAX),
        facts.time_defect(i64::MIN),
    ];
    let sentences = defects.into_iter().flatten().map(|defect| defect.to_string());
    for sentence in sentences.chain(expires_soon(facts.expires(), 0)) {
        assert!(sentence.chars().count() < SENTENCE_CHARS_MAX, "{sentence}");
        assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
    }
});
