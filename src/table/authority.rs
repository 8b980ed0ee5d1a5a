//! What the SOA and NS records of every zone have in common, whether they are answered or transferred.

/// TTL of NS records and of the addresses of name servers, in seconds: they change with the configuration alone.
pub const NAME_SERVER_TTL: u32 = 3600;

/// How long a secondary waits before it asks for the serial by itself, in seconds. NOTIFY is faster where it arrives.
pub const SOA_REFRESH: i32 = 60;

/// The same after an attempt that failed.
pub const SOA_RETRY: i32 = 10;

/// How long a secondary answers without having reached this server, in seconds: two weeks.
pub const SOA_EXPIRE: i32 = 1_209_600;

/// The mailbox that an SOA names as responsible (RFC 2142, 7).
pub const RESPONSIBLE: &str = "hostmaster";
