//! What of a request to the admin interface is parsed: the first line is `Host`, the others are `Accept`, and names and types
//! that are to be explained.

#![no_main]

use alternator_dns::admin::{
    AllowedHosts, MetricsFormat,
    explain::{ExplainedSubject, RequestedType},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|head: &str| {
    let mut lines = head.lines();
    let host = lines.next().unwrap_or_default();
    let is_allowed = AllowedHosts::default().allows(host);
    assert!(!is_allowed || !host.to_lowercase().contains("evil.example"), "{host:?}");
    let accepted: Vec<_> = lines.collect();
    for line in &accepted {
        if let Ok(subject) = line.parse::<ExplainedSubject>() {
            assert_eq!(subject.to_string().parse::<ExplainedSubject>(), Ok(subject), "{line:?}");
        }
        if let Ok(query_type) = line.parse::<RequestedType>() {
            assert_eq!(query_type.to_string().parse::<RequestedType>(), Ok(query_type), "{line:?}");
        }
    }
    let format = MetricsFormat::negotiate(accepted.iter().copied());
    assert!(format == MetricsFormat::Text || head.to_lowercase().contains("openmetrics"), "{head:?}");
});
