//! One message over UDP, through all that stands between the socket's two ends.

#![no_main]

use alternator_dns::metrics::Transport;
use alternator_dns_fuzz::{answered, check_outcome};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    check_outcome(message, answered(message, Transport::Udp).as_deref(), Transport::Udp);
});
