//! Counters of transfers of zones to secondaries.

use std::fmt;

use super::{Counter, Label, PerLabel, labels};

labels! {
    /// What a secondary was given.
    TransferType {
        /// A whole zone, as asked for.
        Axfr = "axfr",
        /// A whole zone in place of its changes, or its SOA where nothing has changed (RFC 1995, 4).
        Ixfr = "ixfr",
        /// The SOA.
        Soa = "soa",
    }
}

labels! {
    /// Why a message about a transfer was refused.
    TransferRefusal {
        /// It came from an address that is no secondary's.
        Address = "address",
        /// It has no TSIG record.
        Unsigned = "unsigned",
        /// Its TSIG record names another key or algorithm.
        BadKey = "bad_key",
        /// Its MAC is wrong or truncated.
        BadSignature = "bad_signature",
        /// It was signed too long ago, or in the future.
        BadTime = "bad_time",
        /// It is ill-formed, as are MACs of lengths that no MAC has (RFC 8945, 5.2.2.1).
        Malformed = "malformed",
        /// It asks for a zone that is not configured.
        NoZone = "no_zone",
        /// No node of the zone is known, so there is nothing to transfer.
        NotReady = "not_ready",
        /// It asks for a whole zone over UDP.
        Udp = "udp",
        /// It asks for a zone over TLS before version 1.3 (RFC 9103).
        OldTls = "old_tls",
        /// Too many transfers are under way.
        Busy = "busy",
    }
}

labels! {
    /// What became of a NOTIFY message.
    NotifyResult {
        /// It was sent; each is counted here and once more.
        Sent = "sent",
        /// The secondary acknowledged it.
        Acknowledged = "acknowledged",
        /// The secondary answered with an error.
        Refused = "refused",
        /// There was no answer in time; it is sent again.
        Timeout = "timeout",
        /// It could not be sent.
        Failed = "failed",
    }
}

/// Counters of transfers.
#[derive(Debug, Default)]
pub struct TransferCounters {
    /// What secondaries were given.
    pub given: PerLabel<TransferType>,
    /// Messages about transfers that were refused.
    pub refused: PerLabel<TransferRefusal>,
    /// NOTIFY messages.
    pub notifies: PerLabel<NotifyResult>,
    /// Datagrams to the socket of a secondary that answer no NOTIFY, or are not signed as they must be.
    pub replies_ignored: Counter,
}
