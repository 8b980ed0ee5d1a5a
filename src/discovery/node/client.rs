//! Sends HTTP requests to nodes, with a timeout and a limit on the size of the answer.

mod error;

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use hyper::{
    Method, Request, StatusCode,
    header::{CONNECTION, HOST},
    http::request,
};
use tokio::time::{Instant, timeout};

pub use self::error::FetchError;
use self::error::explain;
use super::{
    super::clock,
    connections::{Clients, Keep},
    identity::{
        IDENTITY_BODY, IDENTITY_HEADERS, IDENTITY_OCTETS_MAX, IDENTITY_QUERY_MAX, IdentityQueries, IdentityQuery,
        IdentityReply, Prepared, UnknownIdentity,
    },
    localnodes::{self, BODY_OCTETS_MAX, ListError, Listing},
    tls::{self, Ready, TlsClients},
};
use crate::{
    config::{Scheme, Zone},
    metrics::{NodeRequest, NodeRequests},
    net::client::{BodyError, Client, Reply},
};

/// The largest body of a health check's answer. Alternator sends less than a hundred octets; what sends more than this
/// is not Alternator.
pub const HEALTH_OCTETS_MAX: usize = 4096;

/// The ports that an URL does not name.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Sends requests to nodes. Clones share their connections; one client serves all zones.
#[derive(Clone, Debug)]
pub struct NodeClient {
    /// For plain HTTP.
    plain: Clients,
    /// For HTTPS.
    tls: TlsClients,
    /// How nodes are asked which cluster is theirs.
    identities: IdentityQueries,
    /// Where requests are counted.
    requests: Arc<NodeRequests>,
}

/// How one node is reached. Equal endpoints are one endpoint for all zones.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub struct Endpoint {
    /// HTTP, or HTTPS and its keys.
    pub scheme: Scheme,
    /// The node's address.
    pub address: IpAddr,
    /// The port of its cluster.
    pub port: NonZeroU16,
}

/// The part of a cluster that a list is limited to. Names are those of the cluster, whatever they contain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Location<'a> {
    /// All of this datacenter.
    pub datacenter: &'a str,
    /// Only this rack of it.
    pub rack: Option<&'a str>,
}

/// The connection of a probe that succeeded, kept for one identity query.
#[derive(Debug)]
pub struct ProbeConnection(Target);

/// How one node is asked.
#[derive(Debug)]
struct Target {
    node: SocketAddr,
    client: Client,
    scheme: &'static str,
    /// A name or an address, and a port unless it is that of the scheme.
    host: String,
    /// The connection is closed after the answer.
    close: bool,
    requests: Arc<NodeRequests>,
}

/// A usable list.
#[derive(Clone, Debug)]
pub struct ListReply {
    /// The list.
    pub listing: Listing,
    /// When the head of the answer had arrived.
    pub arrived: Instant,
}

impl NodeClient {
    /// A client that has no connection yet. Files that TLS needs are read when they are needed.
    pub fn new() -> Self {
        Self::counting(Arc::default())
    }

    /// The same, which counts its requests here.
    pub fn counting(requests: Arc<NodeRequests>) -> Self {
        Self { plain: Clients::new(None), tls: TlsClients::new(), identities: IdentityQueries::default(), requests }
    }

    /// Asks one node which nodes are alive, in one location or without parameters. `within` bounds everything from the
    /// connection to the last octet.
    ///
    /// # Errors
    /// Anything but status 200 with a usable list, in time.
    pub async fn local_nodes(
        &self,
        endpoint: &Endpoint,
        location: Option<Location<'_>>,
        within: Duration,
        keep: Keep,
    ) -> Result<ListReply, FetchError> {
        let begun = clock::now();
        let asked = async {
            let reply = self.target(endpoint, keep).await?.get(&path_to(location), NodeRequest::List).await?;
            let arrived = Instant::now();
            let body = body(reply, BODY_OCTETS_MAX).await?.ok_or(ListError::TooLarge)?;
            Ok(ListReply { listing: localnodes::parse(&body)?, arrived })
        };
        let outcome = timeout(within, asked).await.unwrap_or(Err(FetchError::Timeout(within)));
        self.requests.list_durations().observe(clock::now().saturating_duration_since(begun));
        outcome
    }

    /// Asks one node on a fresh connection whether it is healthy. `within` bounds everything from the connection to
    /// the last octet.
    ///
    /// # Errors
    /// Anything but status 200 with a short body, in time.
    pub async fn health(&self, endpoint: &Endpoint, within: Duration) -> Result<(), FetchError> {
        let asked = async { self.target(endpoint, Keep::Never).await?.is_healthy().await };
        timeout(within, asked).await.unwrap_or(Err(FetchError::Timeout(within)))
    }

    /// The same, and keeps the connection for an identity query.
    ///
    /// # Errors
    /// As for [`Self::health`].
    pub async fn health_before_identity(
        &self,
        endpoint: &Endpoint,
        within: Duration,
    ) -> Result<ProbeConnection, FetchError> {
        let asked = async {
            let mut target = self.target(endpoint, Keep::ForCaller).await?;
            target.is_healthy().await?;
            target.close = true;
            Ok(ProbeConnection(target))
        };
        timeout(within, asked).await.unwrap_or(Err(FetchError::Timeout(within)))
    }

    /// How the nodes of a zone are asked for the id of their cluster; `None`: they are not. Zones of one cluster share
    /// what is known of its answers.
    pub fn identity_query(&self, zone: &Zone) -> Option<IdentityQuery> {
        self.identities.of(zone)
    }

    /// Asks one node for the id of its cluster; `None`: it was not asked, because another query is on its way that finds
    /// out whether the cluster answers.
    pub async fn identify(
        &self,
        endpoint: &Endpoint,
        query: &IdentityQuery,
        within: Duration,
        keep: Keep,
    ) -> Option<IdentityReply> {
        let asked = async {
            match self.target(endpoint, keep).await {
                Ok(target) => target.identify(query).await,
                Err(error) => Some(no_answer(&error)),
            }
        };
        bounded(within, asked).await
    }

    /// How a node is asked.
    async fn target(&self, endpoint: &Endpoint, keep: Keep) -> Result<Target, FetchError> {
        let node = SocketAddr::new(endpoint.address, endpoint.port.get());
        let (scheme, default_port, Ready { client, host }) = match &endpoint.scheme {
            Scheme::Http => {
                ("http", HTTP_PORT, Ready { client: self.plain.of(keep), host: tls::in_brackets(endpoint.address) })
            }
            Scheme::Https(tls) => {
                let ready = self.tls.ready(tls, endpoint.address, keep).await.map_err(FetchError::Files)?;
                ("https", HTTPS_PORT, ready)
            }
        };
        let host = if node.port() == default_port { host } else { format!("{host}:{}", node.port()) };
        let requests = self.requests.clone();
        Ok(Target { node, client, scheme, host, close: keep == Keep::Never, requests })
    }
}

impl Default for NodeClient {
    fn default() -> Self {
        Self::new()
    }
}

impl ProbeConnection {
    /// Asks the node for the id of its cluster, and closes the connection; `None`: it was not asked, because another
    /// query is on its way that finds out whether the cluster answers.
    pub async fn identify(self, query: &IdentityQuery, within: Duration) -> Option<IdentityReply> {
        bounded(within, self.0.identify(query)).await
    }
}

impl Target {
    /// A request without a body.
    fn request(&self, method: Method, path: &str) -> request::Builder {
        let request = Request::builder().method(method).uri(path).header(HOST, &self.host);
        if self.close { request.header(CONNECTION, "close") } else { request }
    }

    /// Sends a request, and waits for the head of the answer.
    async fn send(&self, request: request::Builder, body: &str, kind: NodeRequest) -> Result<Reply, FetchError> {
        let request = request.body(body.to_owned()).map_err(|error| explain(&error))?;
        self.requests.count(self.node.ip(), kind, clock::now());
        let reply = self.client.send(self.node, request).await.map_err(|error| explain(&error))?;
        if let Some(expires) = reply.certificate_expires() {
            self.requests.show_certificate(self.node.ip(), expires);
        }
        Ok(reply)
    }

    /// The head of an answer with status 200.
    async fn get(&self, path: &str, kind: NodeRequest) -> Result<Reply, FetchError> {
        let reply = self.send(self.request(Method::GET, path), "", kind).await?;
        match reply.status() {
            StatusCode::OK => Ok(reply),
            other => Err(FetchError::Status(other.as_u16())),
        }
    }

    async fn is_healthy(&self) -> Result<(), FetchError> {
        body(self.get("/", NodeRequest::Health).await?, HEALTH_OCTETS_MAX).await?.ok_or(FetchError::TooLong)?;
        Ok(())
    }

    async fn identify(&self, query: &IdentityQuery) -> Option<IdentityReply> {
        let url = format!("{}://{}/", self.scheme, self.host);
        let Prepared { headers, grant } = match query.prepare(self.node.ip(), &url).await {
            Ok(prepared) => prepared,
            Err(outcome) => return outcome,
        };
        let reply = self.identity(&headers).await.unwrap_or_else(|error| no_answer(&error));
        grant.report(&reply);
        Some(reply)
    }

    /// Sends an identity query and reads the answer.
    async fn identity(&self, signature: &[(String, String)]) -> Result<IdentityReply, FetchError> {
        let mut request = self.request(Method::POST, "/");
        for (name, value) in IDENTITY_HEADERS {
            request = request.header(name, value);
        }
        for (name, value) in signature {
            request = request.header(name, value);
        }
        let reply = self.send(request, IDENTITY_BODY, NodeRequest::Identity).await?;
        let status = reply.status().as_u16();
        let body = body(reply, IDENTITY_OCTETS_MAX).await?;
        Ok(IdentityReply::read(status, body.as_deref()))
    }
}

fn no_answer(error: &FetchError) -> IdentityReply {
    IdentityReply::Unknown(match error {
        FetchError::Files(why) => UnknownIdentity::NotAsked(why.to_string()),
        FetchError::Shortage(shortage) => UnknownIdentity::NotAsked(shortage.to_string()),
        error => UnknownIdentity::NoAnswer(error.to_string()),
    })
}

/// Bounds an identity query in time.
async fn bounded(within: Duration, asked: impl Future<Output = Option<IdentityReply>>) -> Option<IdentityReply> {
    let within = within.min(IDENTITY_QUERY_MAX);
    timeout(within, asked).await.unwrap_or_else(|_| Some(no_answer(&FetchError::Timeout(within))))
}

/// The path of a node's list, limited to a location.
fn path_to(location: Option<Location<'_>>) -> String {
    match location {
        None => "/localnodes".into(),
        Some(Location { datacenter, rack: None }) => format!("/localnodes?dc={}", encoded(datacenter)),
        Some(Location { datacenter, rack: Some(rack) }) => {
            format!("/localnodes?dc={}&rack={}", encoded(datacenter), encoded(rack))
        }
    }
}

/// A value in a query (RFC 3986): what is not unreserved is escaped, blanks too, since not all servers read `+` so.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(octet.into()),
            // Writing to a string cannot fail.
            _ => _ = write!(encoded, "%{octet:02X}"),
        }
    }
    encoded
}

/// The whole body; `None` when it has more octets than this.
async fn body(reply: Reply, octets_max: usize) -> Result<Option<Vec<u8>>, FetchError> {
    reply.body(octets_max).await.map_err(|error| match error {
        BodyError::Excess(excess) => excess.into(),
        BodyError::Lost(error) => explain(&error),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant as Clock;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        discovery::node::tls::TlsClientError,
        metrics::PollResult,
        net::{client::Excess, shortage::Shortage},
        simulation::{Content, Delivery, HttpReply as Raw, Path, SimulatedCluster},
        types::ProbeFailure,
    };

    /// The timeout for nodes that answer: long, because the machine may be busy.
    const LONG: Duration = Duration::from_secs(10);

    /// The timeout for nodes that never answer.
    const SHORT: Duration = Duration::from_millis(200);

    /// One node, asked as often as a test likes.
    struct Bench {
        cluster: SimulatedCluster,
        alternator: NodeClient,
        node: IpAddr,
        endpoint: Endpoint,
        within: Duration,
    }

    impl Bench {
        fn new() -> Self {
            let cluster = SimulatedCluster::start(1).unwrap();
            let node = cluster.node(0);
            let endpoint = endpoint(&cluster);
            Self { cluster, alternator: NodeClient::new(), node, endpoint, within: LONG }
        }

        async fn ask(&self) -> Result<ListReply, FetchError> {
            self.alternator.local_nodes(&self.endpoint, None, self.within, Keep::Shortly).await
        }

        async fn probe(&self) -> Result<(), FetchError> {
            self.alternator.health(&self.endpoint, self.within).await
        }

        async fn says(&self, content: impl Into<Raw>) -> Result<ListReply, FetchError> {
            self.cluster.say(self.node, Path::LocalNodes, Content::Reply(content.into()));
            self.ask().await
        }

        async fn sends(&self, delivery: Delivery) -> Result<ListReply, FetchError> {
            self.cluster.deliver(self.node, Path::LocalNodes, delivery);
            self.ask().await
        }
    }

    /// A cluster's first node, in the clear.
    fn endpoint(cluster: &SimulatedCluster) -> Endpoint {
        let port = NonZeroU16::new(cluster.port()).unwrap();
        Endpoint { scheme: Scheme::Http, address: cluster.node(0), port }
    }

    impl From<&[u8]> for Raw {
        fn from(body: &[u8]) -> Self {
            Self::ok(body)
        }
    }

    impl From<&str> for Raw {
        fn from(body: &str) -> Self {
            Self::ok(body)
        }
    }

    fn listed(reply: Result<ListReply, FetchError>) -> Vec<String> {
        reply.unwrap().listing.nodes.as_slice().iter().map(IpAddr::to_string).collect()
    }

    #[tokio::test]
    async fn good_lists_are_understood() {
        let bench = Bench::new();
        for (body, nodes) in [
            (r#"["127.0.0.2","127.0.0.1","127.0.0.3"]"#, &["127.0.0.1", "127.0.0.2", "127.0.0.3"][..]),
            (r#"["10.0.0.1"]"#, &["10.0.0.1"]),
            (r#"["2001:db8::1","2001:db8::2"]"#, &["2001:db8::1", "2001:db8::2"]),
            (r#"["10.0.0.1","2001:db8::1","::ffff:10.0.0.9"]"#, &["10.0.0.1", "10.0.0.9", "2001:db8::1"]),
            (r#"["127.0.0.0","127.0.0.0"]"#, &["127.0.0.0"]),
            (" [ \"10.0.0.1\" ,\n \"10.0.0.2\" ]\n", &["10.0.0.1", "10.0.0.2"]),
            (r#"["10\u002e0.0.1"]"#, &["10.0.0.1"]),
            (r#"["10.0.0.1","0b1c2d3e-1111-4222-8333-444455556666"]"#, &["10.0.0.1"]),
            (r#"["10.0.0.1","node-a.internal","localhost"]"#, &["10.0.0.1"]),
            (r#"["10.0.0.2","10.0.0.1:8000","[::1]:8000","fe80::1%eth0","010.0.0.1","1.2.3",""]"#, &["10.0.0.2"]),
            (r#"["10.0.0.1",null,7,["x"]]"#, &["10.0.0.1"]),
            (r#"["0.0.0.0","255.255.255.255","224.0.0.1","::","10.0.0.1"]"#, &["10.0.0.1"]),
        ] {
            assert_eq!(listed(bench.says(body).await), nodes, "{body}");
        }
        let many: Vec<_> = (0..500).map(|n| format!("10.0.{}.{}", n / 250, n % 250)).collect();
        assert_eq!(listed(bench.says(&*serde_json::to_string(&many).unwrap()).await).len(), 500);
        assert_eq!(bench.cluster.connections(bench.node), 1, "the connection is kept");
    }

    #[tokio::test]
    async fn a_good_list_may_travel_in_many_ways() {
        let bench = Bench::new();
        let node = bench.node.to_string();
        assert_eq!(listed(bench.ask().await), [&*node]);
        assert_eq!(listed(bench.sends(Delivery::Chunked).await), [&*node]);
        assert_eq!(listed(bench.sends(Delivery::Delayed(SHORT)).await), [&*node]);
        let old = b"HTTP/1.0 200 OK\r\n\r\n[\"10.0.0.7\"]".to_vec();
        assert_eq!(listed(bench.sends(Delivery::Verbatim(old)).await), ["10.0.0.7"]);
        bench.cluster.heal(bench.node);
        bench.cluster.stop(bench.node);
        assert_eq!(bench.ask().await.unwrap_err(), FetchError::Refused);
        bench.cluster.restart(bench.node).unwrap();
        assert_eq!(listed(bench.ask().await), [&*node], "a lost connection is made again");
    }

    #[tokio::test]
    async fn unusable_bodies_have_different_results() {
        let bench = Bench::new();
        let nested = "[".repeat(100_000);
        for (body, result) in [
            (&b"[]"[..], PollResult::Empty),
            (b"[\"node-a.internal\"]", PollResult::Empty),
            (b"", PollResult::Malformed),
            (b"null", PollResult::Malformed),
            (b"{}", PollResult::Malformed),
            (b"\"10.0.0.1\"", PollResult::Malformed),
            (b"42", PollResult::Malformed),
            (b"{\"message\": \"Not found\", \"code\": 404}", PollResult::Malformed),
            (b"[\"10.0.0.1\",", PollResult::Malformed),
            (b"[\"10.0.0.1\"] trailing", PollResult::Malformed),
            (b"[\"10.0.0.1", PollResult::Malformed),
            (b"[\"10.0.0.1\", \"\xff\xfe\"]", PollResult::Malformed),
            (b"\xef\xbb\xbf[\"10.0.0.1\"]", PollResult::Malformed),
            (b"[\"10.0.0.1\"]\0", PollResult::Malformed),
            (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", PollResult::Malformed),
            (nested.as_bytes(), PollResult::Malformed),
        ] {
            let error = bench.says(body).await.unwrap_err();
            assert_eq!(error.result(), result, "{error}: {:?}", body.escape_ascii().to_string());
        }
        let huge = format!("[{}\"10.0.0.1\"]", " ".repeat(BODY_OCTETS_MAX));
        assert_eq!(bench.says(&*huge).await.unwrap_err().result(), PollResult::TooLarge);
        assert_eq!(bench.says("[").await.unwrap_err().to_string(), "sent a body that is not a JSON array (at byte 0)");
    }

    #[tokio::test]
    async fn only_status_200_counts_and_redirects_are_not_followed() {
        let bench = Bench::new();
        for status in [201, 204, 301, 302, 400, 404, 429, 500, 502, 503] {
            let reply = Raw::status(status).header("Location", "/").body("[\"10.0.0.1\"]");
            let expected = FetchError::Status(status);
            assert_eq!(bench.says(reply).await.unwrap_err(), expected);
        }
        assert_eq!(bench.cluster.count(bench.node, Path::Health), 0);
        assert_eq!(bench.ask().await.unwrap_err().to_string(), "answered 503");
    }

    #[tokio::test]
    async fn broken_deliveries_end_in_time() {
        let mut bench = Bench::new();
        let garbage = Delivery::Verbatim(b"\x15\x03\x01\0\x02\x02\x16".to_vec());
        for delivery in [Delivery::Short, Delivery::Close, garbage] {
            let error = bench.sends(delivery.clone()).await.unwrap_err();
            assert_eq!(error.result(), PollResult::Broken, "{delivery:?}: {error}");
        }
        let error = bench.sends(Delivery::ResetMidBody).await.unwrap_err();
        assert_eq!((error.result(), error.is_refusal()), (PollResult::Broken, true), "{error}");
        assert_eq!(bench.sends(Delivery::Endless).await.unwrap_err().result(), PollResult::TooLarge);
        let error = bench.sends(Delivery::EndlessHead).await.unwrap_err();
        assert_eq!(error.to_string(), "could not be asked: message head is too large");
        assert_eq!(bench.sends(Delivery::EndlessContinue).await.unwrap_err(), FetchError::Excess(Excess::Head));
        assert_eq!(bench.sends(Delivery::EndlessChunks).await.unwrap_err(), FetchError::Excess(Excess::Pieces));
        bench.within = SHORT;
        for delivery in [Delivery::Hang, Delivery::Drip(SHORT / 10)] {
            let start = Clock::now();
            assert_eq!(bench.sends(delivery).await.unwrap_err(), FetchError::Timeout(SHORT));
            assert!(start.elapsed() < LONG);
        }
        bench.cluster.stop(bench.node);
        assert_eq!(bench.ask().await.unwrap_err().to_string(), "refused the connection");
    }

    #[tokio::test]
    async fn ipv6_nodes_are_asked_in_brackets() {
        let cluster = SimulatedCluster::start_at(&["::1".parse().unwrap()], 0).unwrap();
        let reply = NodeClient::new().local_nodes(&endpoint(&cluster), None, LONG, Keep::Shortly).await;
        assert_eq!(listed(reply), ["::1"]);
        assert_eq!(cluster.requests(cluster.node(0))[0].host, format!("[::1]:{}", cluster.port()));
    }

    #[tokio::test]
    async fn a_location_is_sent_in_the_query_whatever_its_name() {
        let bench = Bench::new();
        for (datacenter, rack, target) in [
            ("dc1", None, "/localnodes?dc=dc1"),
            ("dc1", Some("r1"), "/localnodes?dc=dc1&rack=r1"),
            ("a b&rack=c#+%/?", Some("\u{e9}"), "/localnodes?dc=a%20b%26rack%3Dc%23%2B%25%2F%3F&rack=%C3%A9"),
        ] {
            let location = Some(Location { datacenter, rack });
            let reply = bench.alternator.local_nodes(&bench.endpoint, location, LONG, Keep::Shortly).await;
            assert!(matches!(reply, Err(FetchError::List(ListError::Empty))), "no node is there: {reply:?}");
            assert_eq!(bench.cluster.requests(bench.node).last().unwrap().target, target);
        }
    }

    proptest! {
        #[test]
        fn any_location_is_decoded_as_it_was(datacenter: String, rack: Option<String>) {
            let location = Location { datacenter: &datacenter, rack: rack.as_deref() };
            let url = reqwest::Url::parse(&format!("http://127.0.0.1:8000{}", path_to(Some(location)))).unwrap();
            let sent: Vec<_> = url.query_pairs().into_owned().collect();
            let rack = rack.map(|rack| ("rack".into(), rack));
            prop_assert_eq!(sent, [("dc".into(), datacenter)].into_iter().chain(rack).collect::<Vec<_>>());
            prop_assert_eq!((url.path(), url.fragment()), ("/localnodes", None));
        }
    }

    #[tokio::test]
    async fn each_probe_is_a_connection_of_its_own() {
        let bench = Bench::new();
        bench.ask().await.unwrap();
        for _ in 0..3 {
            bench.probe().await.unwrap();
        }
        bench.ask().await.unwrap();
        assert_eq!((bench.cluster.connections(bench.node), bench.cluster.count(bench.node, Path::Health)), (4, 3));
    }

    #[tokio::test]
    async fn a_connection_is_kept_only_if_it_is_to_be() {
        let bench = Bench::new();
        for (keep, connections) in [(Keep::Never, 3), (Keep::Shortly, 4), (Keep::Long, 5)] {
            for _ in 0..3 {
                bench.alternator.local_nodes(&bench.endpoint, None, LONG, keep).await.unwrap();
            }
            assert_eq!(bench.cluster.connections(bench.node), connections, "{keep:?}");
        }
    }

    #[tokio::test]
    async fn a_probe_returns_why_a_node_is_not_healthy() {
        let mut bench = Bench::new();
        for status in [204, 302, 404, 500, 503] {
            bench.cluster.say(bench.node, Path::Health, Content::Reply(Raw::status(status)));
            assert_eq!(bench.probe().await.unwrap_err(), FetchError::Status(status));
        }
        bench.cluster.heal(bench.node);
        for (delivery, error) in [
            (Delivery::ResetMidBody, FetchError::Reset),
            (Delivery::Endless, FetchError::TooLong),
            (Delivery::EndlessContinue, FetchError::Excess(Excess::Head)),
            (Delivery::EndlessChunks, FetchError::Excess(Excess::Pieces)),
            (Delivery::Hang, FetchError::Timeout(SHORT)),
            (Delivery::Drip(SHORT / 10), FetchError::Timeout(SHORT)),
        ] {
            bench.within = if let FetchError::Timeout(_) = error { SHORT } else { LONG };
            bench.cluster.deliver(bench.node, Path::Health, delivery);
            assert_eq!(bench.probe().await.unwrap_err(), error);
        }
        bench.within = LONG;
        bench.cluster.deliver(bench.node, Path::Health, Delivery::Close);
        let closed = bench.probe().await.unwrap_err();
        assert_eq!((closed.result(), closed.is_refusal()), (PollResult::Broken, false), "{closed}");
        bench.cluster.stop(bench.node);
        let refused = bench.probe().await.unwrap_err();
        assert!(refused.is_refusal() && refused == FetchError::Refused, "{refused}");
    }

    #[test]
    fn a_node_that_was_not_asked_is_counted_apart() {
        let shortage = FetchError::Shortage(Shortage::ProcessDescriptors);
        let files = FetchError::Files(TlsClientError::NotRead);
        for error in [shortage, files] {
            assert!(error.is_not_asked() && !error.is_refusal());
            assert_eq!(error.result(), PollResult::NotAsked);
            assert!(matches!(ProbeFailure::from(error), ProbeFailure::NotAsked(_)));
        }
        assert!(!FetchError::Refused.is_not_asked() && !FetchError::Timeout(SHORT).is_not_asked());
    }
}
