//! The headers of a request to the admin interface that are parsed: the first line is `Host`, the others are `Accept`.

#![no_main]

use alternator_dns::admin::{AllowedHosts, MetricsFormat};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|head: &str| {
    let mut lines = head.lines();
    let host = lines.next().unwrap_or_default();
    let is_allowed = AllowedHosts::default().allows(host);
    assert!(!is_allowed || !host.to_lowercase().contains("evil.example"), "{host:?}");
    let accepted: Vec<_> = lines.collect();
    let format = MetricsFormat::negotiate(accepted.iter().copied());
    assert!(format == MetricsFormat::Text || head.to_lowercase().contains("openmetrics"), "{head:?}");
});
