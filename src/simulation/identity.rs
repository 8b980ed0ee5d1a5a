//! Which cluster a node says is its own: the answer to the identity query, and who may ask.
//!
//! The signature is verified here with other code than the one that makes it, so that both can be wrong only in
//! different ways.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ring::{digest, hmac};
use serde_json::{Value, json};

use super::{HttpReply, SimulatedCluster};
use crate::types::ClusterId;

/// The table and the row that have the id (`system.scylla_local`).
const TABLE: &str = ".scylla.alternator.system.scylla_local";
const ROW_KEY: &str = "raft_group0_id";

/// How far the time of a signature may be away, as in Alternator.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(900);

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What Alternator checks of a request (`alternator_enforce_authorization`, `alternator_warn_authorization`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Authorization {
    /// Nothing.
    #[default]
    Off,
    /// Everything, and a failure only makes a line in the log.
    Warn,
    /// Everything.
    Enforce,
}

/// A role of a cluster.
#[derive(Clone, Debug)]
pub struct Role {
    /// The access key.
    pub name: String,
    /// The secret key, `salted_hash` in a real cluster.
    pub secret_key: String,
    /// Whether it may read `system.scylla_local`.
    pub may_read: bool,
}

/// Identity queries that all nodes of a cluster have read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct IdentityCounts {
    /// Those without a signature.
    pub unsigned: u64,
    /// Those with a signature, valid or not.
    pub signed: u64,
    /// `scylla_alternator_authentication_failures`; a cluster that warns logs a line for each.
    pub authentication_failures: u64,
    /// `scylla_alternator_authorization_failures`; a cluster that warns logs a line for each.
    pub authorization_failures: u64,
}

/// What all nodes of a cluster have in common.
#[derive(Debug, Default)]
pub(super) struct ClusterIdentity {
    id: Option<ClusterId>,
    /// Nodes that give another id, or none.
    other_ids: BTreeMap<IpAddr, Option<ClusterId>>,
    authorization: Authorization,
    roles: Vec<Role>,
    counts: IdentityCounts,
}

/// What is read of a request to the DynamoDB API.
#[derive(Clone, Copy, Debug)]
pub(super) struct ApiRequest<'r> {
    /// Names in lower case, and values.
    pub(super) headers: &'r [(String, String)],
    pub(super) body: &'r [u8],
}

/// Why a request is refused: the kind of the error, and its message.
type Failure = (&'static str, &'static str);

impl SimulatedCluster {
    /// The id of the cluster; by default one that its first address and its port make.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.state.identity().id
    }

    /// Sets the id that nodes give from now on; `None`: the row is missing, as in clusters without raft.
    pub fn set_cluster_id(&self, id: Option<ClusterId>) {
        self.state.identity().id = id;
    }

    /// Sets the id that one node gives from now on, whatever its cluster has.
    pub fn set_node_cluster_id(&self, node: IpAddr, id: Option<ClusterId>) {
        self.state.identity().other_ids.insert(node, id);
    }

    /// Sets what nodes check of identity queries from now on, and which roles there are.
    pub fn authorize(&self, authorization: Authorization, roles: &[Role]) {
        let mut identity = self.state.identity();
        identity.authorization = authorization;
        identity.roles = roles.to_vec();
    }

    /// The identity queries that all nodes have read.
    pub fn identity_counts(&self) -> IdentityCounts {
        self.state.identity().counts
    }
}

impl HttpReply {
    /// An error of the DynamoDB API, such as `ResourceNotFoundException`.
    pub fn api_error(kind: &str, message: &str) -> Self {
        let body = json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": message });
        Self::status(400).header("Content-Type", "application/x-amz-json-1.0").body(body.to_string())
    }
}

impl ClusterIdentity {
    /// The default id of a cluster that begins with this address and port: a UUID of version 4 in form.
    pub(super) fn default_id(first: IpAddr, port: u16) -> Option<ClusterId> {
        let mut octets = [0; 16];
        match first {
            IpAddr::V4(v4) => octets[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => octets[..4].copy_from_slice(&v6.octets()[12..]),
        }
        octets[4..6].copy_from_slice(&port.to_be_bytes());
        octets[6] = 0x40;
        octets[8] = 0x80;
        ClusterId::new(octets)
    }

    pub(super) fn with_id(id: Option<ClusterId>) -> Self {
        Self { id, ..Self::default() }
    }

    /// The address has left the cluster.
    pub(super) fn forget(&mut self, node: IpAddr) {
        self.other_ids.remove(&node);
    }

    /// Counts an identity query, however it will be answered.
    pub(super) fn note(&mut self, request: ApiRequest<'_>) {
        match request.header("authorization") {
            None => self.counts.unsigned += 1,
            Some(_) => self.counts.signed += 1,
        }
    }

    /// The answer of a node to an identity query.
    pub(super) fn answer(&mut self, node: IpAddr, request: ApiRequest<'_>) -> HttpReply {
        if self.authorization != Authorization::Off
            && let Err((kind, message)) = self.check(request, SystemTime::now())
            && self.authorization == Authorization::Enforce
        {
            return HttpReply::api_error(kind, message);
        }
        let id = self.other_ids.get(&node).copied().unwrap_or(self.id);
        let items: Vec<Value> =
            id.iter().map(|id| json!({ "key": { "S": ROW_KEY }, "value": { "S": id.to_string() } })).collect();
        let body = json!({ "Count": items.len(), "ScannedCount": items.len(), "Items": items });
        HttpReply::ok(body.to_string()).header("Content-Type", "application/x-amz-json-1.0")
    }

    /// Checks who asks, then whether they may. A cluster that only warns goes on without a role after the first failure,
    /// and so fails twice.
    fn check(&mut self, request: ApiRequest<'_>, now: SystemTime) -> Result<(), Failure> {
        let authenticated = self.authenticate(request, now);
        self.counts.authentication_failures += u64::from(authenticated.is_err());
        if self.authorization == Authorization::Enforce {
            authenticated?;
        }
        if !authenticated.unwrap_or_default() {
            self.counts.authorization_failures += 1;
            return Err(("AccessDeniedException", "SELECT access on table system.scylla_local is denied"));
        }
        Ok(())
    }

    /// Whether the role that has signed a request may read the table.
    fn authenticate(&self, request: ApiRequest<'_>, now: SystemTime) -> Result<bool, Failure> {
        let missing = "Authorization header is mandatory for signature verification";
        let header = request.header("authorization").ok_or(("MissingAuthenticationTokenException", missing))?;
        let signature = Signature::parse(header).ok_or(("InvalidSignatureException", "the header cannot be parsed"))?;
        let role = self.roles.iter().find(|role| role.name == signature.access_key);
        let role = role.ok_or(("UnrecognizedClientException", "User not found"))?;
        let date = request.header("x-amz-date").unwrap_or_default();
        if !is_recent(date, now) {
            return Err(("InvalidSignatureException", "the signature has expired"));
        }
        if !signature.is_valid(&role.secret_key, date, request) {
            return Err(("UnrecognizedClientException", "wrong signature"));
        }
        Ok(role.may_read)
    }
}

impl<'r> ApiRequest<'r> {
    fn header(self, name: &str) -> Option<&'r str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Whether this is the identity query.
    pub(super) fn is_identity_query(self) -> bool {
        let body: Value = serde_json::from_slice(self.body).unwrap_or_default();
        let key = body["ExpressionAttributeNames"]["#k"].as_str();
        let value = body["ExpressionAttributeValues"][":v"]["S"].as_str();
        self.header("x-amz-target") == Some("DynamoDB_20120810.Query")
            && body["TableName"] == TABLE
            && body["KeyConditionExpression"] == "#k = :v"
            && (key, value) == (Some("key"), Some(ROW_KEY))
    }
}

/// The parts of an `Authorization` header.
struct Signature<'h> {
    access_key: &'h str,
    /// Date, region, service and `aws4_request`.
    scope: &'h str,
    signed_headers: &'h str,
    signature: &'h str,
}

impl<'h> Signature<'h> {
    fn parse(header: &'h str) -> Option<Self> {
        let mut parts = header.strip_prefix(ALGORITHM)?.split(',').map(str::trim);
        let mut part = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix('=');
        let (access_key, scope) = part("Credential")?.split_once('/')?;
        let (signed_headers, signature) = (part("SignedHeaders")?, part("Signature")?);
        Some(Self { access_key, scope, signed_headers, signature })
    }

    /// Whether the signature is the one that this key makes of the request.
    fn is_valid(&self, secret_key: &str, date: &str, request: ApiRequest<'_>) -> bool {
        let scope: Vec<_> = self.scope.split('/').collect();
        let [day, region, "dynamodb", "aws4_request"] = scope[..] else { return false };
        let mut canonical = "POST\n/\n\n".to_owned();
        for name in self.signed_headers.split(';') {
            let Some(value) = request.header(name) else { return false };
            canonical += &format!("{name}:{}\n", value.trim());
        }
        canonical += &format!("\n{}\n{}", self.signed_headers, sha256(request.body));
        let text = format!("{ALGORITHM}\n{date}\n{}\n{}", self.scope, sha256(canonical.as_bytes()));
        let mut key = format!("AWS4{secret_key}").into_bytes();
        for part in [day, region, "dynamodb", "aws4_request", &text] {
            let signed = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes());
            key = signed.as_ref().to_vec();
        }
        let signs_host = self.signed_headers.split(';').any(|name| name == "host");
        signs_host && date.starts_with(day) && hexadecimal(&key) == self.signature
    }
}

/// Whether a time such as `20261123T060000Z` is close to this one.
fn is_recent(date: &str, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    seconds(date).is_some_and(|then| then.abs_diff(now.as_secs()) <= CLOCK_SKEW_MAX.as_secs())
}

/// The seconds since 1970 of a time such as `20261123T060000Z`.
fn seconds(date: &str) -> Option<u64> {
    let digits = |range: std::ops::Range<usize>| date.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (digits(0..4)?, digits(4..6)?, digits(6..8)?);
    let (hour, minute, second) = (digits(9..11)?, digits(11..13)?, digits(13..15)?);
    // Years begin in March, so that a leap day is the last of one; 719,468 days lie before 1970.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day.checked_sub(1)?;
    Some(days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second)
}

fn sha256(octets: &[u8]) -> String {
    hexadecimal(digest::digest(&digest::SHA256, octets).as_ref())
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_seconds() {
        assert_eq!(seconds("19700101T000000Z"), Some(0));
        assert_eq!(seconds("20261123T060000Z"), Some(1_795_413_600));
        assert_eq!(seconds("20240229T235959Z"), Some(1_709_251_199));
        assert_eq!(seconds("2026"), None);
        let now = UNIX_EPOCH + Duration::from_secs(1_795_413_600);
        assert!(is_recent("20261123T061500Z", now) && !is_recent("20261123T061501Z", now));
    }

    #[test]
    fn clusters_have_ids_of_their_own() {
        let id = |first: [u8; 4], port| ClusterIdentity::default_id(first.into(), port).unwrap().to_string();
        assert_eq!(id([127, 1, 2, 3], 8000), "7f010203-1f40-4000-8000-000000000000");
        assert_ne!(id([127, 1, 2, 3], 8000), id([127, 1, 2, 4], 8000));
    }
}
