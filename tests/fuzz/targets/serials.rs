//! The serials of transferred zones: what is understood is written and understood again.

#![no_main]

use alternator_dns::snapshot::rewrite_serials;
use alternator_dns_fuzz::check_sealed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| check_sealed(content, rewrite_serials));
