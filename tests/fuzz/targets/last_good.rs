//! The last good configuration: what is understood is written and understood again.

#![no_main]

use alternator_dns::{config::content_hash, snapshot::rewrite_last_good};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    check(content);
    // No mutation finds a checksum, so the reader behind it is shown the same content with the right one.
    let sealed = [content, b"\n\"checksum\": \"", content_hash(content).as_bytes(), b"\"\n}\n"].concat();
    check(&sealed);
});

fn check(content: &[u8]) {
    if let Some(written) = rewrite_last_good(content) {
        assert_eq!(rewrite_last_good(written.as_bytes()).as_ref(), Some(&written), "the second writing differs");
    }
}
