//! Asks a node for its list over HTTP, within a bound of time and of size.

use std::{
    error::Error,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    time::Duration,
};

use reqwest::{Client, StatusCode, redirect::Policy};
use tokio::time::{Instant, timeout};

use super::localnodes::{self, BODY_OCTETS_MAX, ListError, Listing};
use crate::metrics::PollResult;

/// How long a connection is kept that nobody uses. A few nodes polled in turn every second are asked again within it;
/// one node of hundreds is not, and its connection (17 kB) would only wait.
const IDLE: Duration = Duration::from_secs(10);

/// Connections kept for each node: a tick asks a node at most once.
const IDLE_CONNECTIONS_MAX: usize = 1;

/// Octets shown of what went wrong underneath.
const CAUSE_CHARS_MAX: usize = 120;

/// Asks nodes. Clones share their connections; one serves all zones.
#[derive(Clone, Debug)]
pub struct Alternator {
    client: Client,
}

/// A usable list.
#[derive(Clone, Debug)]
pub struct Reply {
    /// What it says.
    pub listing: Listing,
    /// When the head of the answer had arrived.
    pub arrived: Instant,
}

/// Why a node gave no usable list. Each reads as the end of a sentence that starts with the node.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FetchError {
    /// Nobody listens there.
    #[error("refused the connection")]
    Refused,
    /// No complete answer in time.
    #[error("gave no complete answer within {0:?}")]
    Timeout(Duration),
    /// The connection was lost or could not be made, or the answer is not HTTP.
    #[error("could not be asked: {0}")]
    Broken(String),
    /// An HTTP status other than 200.
    #[error("answered {0}")]
    Status(u16),
    /// The body is no usable list.
    #[error(transparent)]
    List(#[from] ListError),
}

/// The client cannot be built: the process lacks what it needs from the system.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up HTTP")]
pub struct SetUpError(#[source] reqwest::Error);

impl FetchError {
    /// The label under which the attempt is counted.
    pub fn result(&self) -> PollResult {
        match self {
            Self::Refused => PollResult::Refused,
            Self::Timeout(_) => PollResult::Timeout,
            Self::Broken(_) => PollResult::Broken,
            Self::Status(_) => PollResult::Status,
            Self::List(ListError::Malformed { .. }) => PollResult::Malformed,
            Self::List(ListError::TooLarge) => PollResult::TooLarge,
            Self::List(ListError::Empty) => PollResult::Empty,
        }
    }
}

impl Alternator {
    /// Sets up connections for plain HTTP. Proxies of the environment and redirects are ignored: an answer is worth
    /// something only if it comes from the very node.
    ///
    /// # Errors
    /// The system lacks what the client needs.
    pub fn new() -> Result<Self, SetUpError> {
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .http1_only()
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(IDLE)
            .build()
            .map_err(SetUpError)?;
        Ok(Self { client })
    }

    /// Asks one node which nodes are alive. `within` bounds everything from the connection to the last octet.
    ///
    /// # Errors
    /// Anything but status 200 with a usable list, in time.
    pub async fn local_nodes(&self, node: IpAddr, port: NonZeroU16, within: Duration) -> Result<Reply, FetchError> {
        timeout(within, self.fetch(node, port)).await.unwrap_or(Err(FetchError::Timeout(within)))
    }

    async fn fetch(&self, node: IpAddr, port: NonZeroU16) -> Result<Reply, FetchError> {
        let url = format!("http://{}/localnodes", SocketAddr::new(node, port.get()));
        let mut response = self.client.get(url).send().await.map_err(|error| explain(&error))?;
        let arrived = Instant::now();
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| explain(&error))? {
            if body.len() + chunk.len() > BODY_OCTETS_MAX {
                return Err(ListError::TooLarge.into());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { listing: localnodes::parse(&body)?, arrived })
    }
}

/// Finds the cause below the layers: a refusal is told apart, of anything else the innermost sentence is kept.
fn explain(error: &reqwest::Error) -> FetchError {
    let mut cause: &(dyn Error + 'static) = error;
    loop {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if cause.downcast_ref().is_some_and(refused) {
            return FetchError::Refused;
        }
        match cause.source() {
            Some(source) => cause = source,
            None => return FetchError::Broken(cause.to_string().chars().take(CAUSE_CHARS_MAX).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant as Clock;

    use super::*;
    use crate::simulation::{Cluster, Content, Delivery, Path, Reply as Raw};

    /// Patience with nodes that answer: long, because the machine may be busy.
    const LONG: Duration = Duration::from_secs(10);

    /// Patience with nodes that never will.
    const SHORT: Duration = Duration::from_millis(200);

    /// One node, asked as often as a test likes.
    struct Bench {
        cluster: Cluster,
        alternator: Alternator,
        node: IpAddr,
        within: Duration,
    }

    impl Bench {
        fn new() -> Self {
            let cluster = Cluster::start(1).unwrap();
            Self { node: cluster.node(0), cluster, alternator: Alternator::new().unwrap(), within: LONG }
        }

        async fn ask(&self) -> Result<Reply, FetchError> {
            self.alternator.local_nodes(self.node, NonZeroU16::new(self.cluster.port()).unwrap(), self.within).await
        }

        async fn says(&self, content: impl Into<Raw>) -> Result<Reply, FetchError> {
            self.cluster.say(self.node, Path::LocalNodes, Content::Reply(content.into()));
            self.ask().await
        }

        async fn sends(&self, delivery: Delivery) -> Result<Reply, FetchError> {
            self.cluster.deliver(self.node, Path::LocalNodes, delivery);
            self.ask().await
        }
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

    fn listed(reply: Result<Reply, FetchError>) -> Vec<String> {
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
    async fn unusable_bodies_are_told_apart() {
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
        for delivery in [Delivery::Short, Delivery::ResetMidBody, Delivery::Close, garbage] {
            let error = bench.sends(delivery.clone()).await.unwrap_err();
            assert_eq!(error.result(), PollResult::Broken, "{delivery:?}: {error}");
        }
        assert_eq!(bench.sends(Delivery::Endless).await.unwrap_err().result(), PollResult::TooLarge);
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
        let cluster = Cluster::start_at(&["::1".parse().unwrap()], 0).unwrap();
        let port = NonZeroU16::new(cluster.port()).unwrap();
        let reply = Alternator::new().unwrap().local_nodes(cluster.node(0), port, LONG).await;
        assert_eq!(listed(reply), ["::1"]);
        assert_eq!(cluster.requests(cluster.node(0))[0].host, format!("[::1]:{port}"));
    }
}
