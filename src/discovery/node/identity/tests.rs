//! Identity queries to simulated nodes.

use std::{
    fs,
    net::IpAddr,
    num::NonZeroU16,
    path::{Path as File, PathBuf},
};

use futures_util::future::join_all;
use tokio::time::sleep;

use super::*;
use crate::{
    config::Config,
    discovery::node::{Endpoint, Keep, NodeClient},
    simulation::{Authorization, Content, Delivery, HttpReply, Path, Role, SimulatedCluster},
    types::ClusterId,
};

/// Patience with nodes that answer: long, because the machine may be busy.
const LONG: Duration = Duration::from_secs(10);

/// Patience with nodes that never will.
const SHORT: Duration = Duration::from_millis(200);

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

const SECRET: &str = "$6$salt$0123456789abcdef./";

/// A cluster, and a client that asks it.
struct Fixture {
    cluster: SimulatedCluster,
    client: NodeClient,
}

impl Fixture {
    fn new(nodes: usize) -> Self {
        Self { cluster: SimulatedCluster::start(nodes).unwrap(), client: NodeClient::new() }
    }

    /// A zone of the cluster with these keys.
    fn zone(&self, keys: &str) -> Zone {
        let (seed, port) = (self.cluster.node(0), self.cluster.port());
        let text = format!("[zones.\"a.example\"]\nseeds = [\"{seed}\"]\nport = {port}\n{keys}\n");
        Config::parse(File::new("z.toml"), text.as_bytes()).unwrap().zones.into_values().next().unwrap()
    }

    fn query(&self, keys: &str) -> IdentityQuery {
        self.client.identity_query(&self.zone(keys)).unwrap()
    }

    fn endpoint(&self, node: IpAddr) -> Endpoint {
        Endpoint { scheme: Scheme::Http, address: node, port: NonZeroU16::new(self.cluster.port()).unwrap() }
    }

    async fn ask(&self, query: &IdentityQuery) -> Option<IdentityReply> {
        self.ask_within(query, LONG).await
    }

    async fn ask_within(&self, query: &IdentityQuery, within: Duration) -> Option<IdentityReply> {
        self.client.identify(&self.endpoint(self.cluster.node(0)), query, within, Keep::Never).await
    }

    /// The reply of a node that gives the cluster's id.
    fn id(&self) -> Option<IdentityReply> {
        self.cluster.cluster_id().map(IdentityReply::Id)
    }
}

/// A file that is removed in the end.
struct SecretFile(PathBuf);

impl SecretFile {
    fn new(test: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("alternator-dns-{test}-{}", std::process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn keys(&self) -> String {
        format!("identity = {{ access_key = \"dns\", secret_key_file = \"{}\" }}", self.0.display())
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn role(may_read: bool) -> Role {
    Role { name: "dns".into(), secret_key: SECRET.into(), may_read }
}

fn refused(kind: &str) -> Option<IdentityReply> {
    Some(IdentityReply::Refused(Refusal { status: 400, kind: kind.into() }))
}

fn unknown(why: UnknownIdentity) -> Option<IdentityReply> {
    Some(IdentityReply::Unknown(why))
}

#[tokio::test]
async fn an_open_cluster_gives_its_id() {
    let fixture = Fixture::new(2);
    let query = fixture.query("");
    assert_eq!(fixture.ask(&query).await, fixture.id());
    let other = ClusterId::parse("2f0c6a1e-5d3b-11f0-8de9-0242ac120002").unwrap();
    fixture.cluster.set_node_cluster_id(fixture.cluster.node(0), Some(other));
    assert_eq!(fixture.ask(&query).await, Some(IdentityReply::Id(other)));
    fixture.cluster.set_cluster_id(None);
    fixture.cluster.set_node_cluster_id(fixture.cluster.node(0), None);
    assert_eq!(fixture.ask(&query).await, unknown(UnknownIdentity::NoRow));
    assert_eq!(fixture.cluster.identity_counts().unsigned, 3);
    assert!(fixture.client.identity_query(&fixture.zone("identity = false")).is_none());
}

#[tokio::test]
async fn an_answer_that_is_none_is_distinguished() {
    let fixture = Fixture::new(1);
    let node = fixture.cluster.node(0);
    let id = fixture.cluster.cluster_id().unwrap();
    let huge = format!("{{\"Items\":[{{\"value\":{{\"S\":\"{id}\"}}}}]{}}}", " ".repeat(IDENTITY_OCTETS_MAX));
    for (reply, expected) in [
        (HttpReply::ok("<html>"), UnknownIdentity::Malformed),
        (HttpReply::ok("{\"Items\":[{\"value\":{\"S\":\"x\"}}]}"), UnknownIdentity::NotUuid),
        (HttpReply::ok(huge), UnknownIdentity::TooLarge),
        (HttpReply::status(500), UnknownIdentity::Status(500)),
        (HttpReply::status(302).header("Location", "/"), UnknownIdentity::Status(302)),
    ] {
        fixture.cluster.say(node, Path::Identity, Content::Reply(reply));
        assert_eq!(fixture.ask(&fixture.query("")).await, unknown(expected));
    }
    fixture.cluster.heal(node);
    for delivery in [Delivery::Close, Delivery::Short, Delivery::ResetMidBody, Delivery::Verbatim(b"no".into())] {
        fixture.cluster.deliver(node, Path::Identity, delivery.clone());
        let reply = fixture.ask(&fixture.query("")).await;
        assert!(matches!(reply, Some(IdentityReply::Unknown(UnknownIdentity::NoAnswer(_)))), "{delivery:?}: {reply:?}");
    }
    fixture.cluster.deliver(node, Path::Identity, Delivery::Endless);
    assert_eq!(fixture.ask(&fixture.query("")).await, unknown(UnknownIdentity::TooLarge));
    for delivery in [Delivery::Hang, Delivery::Drip(SHORT / 10)] {
        fixture.cluster.deliver(node, Path::Identity, delivery);
        let late = "gave no complete answer within 200ms".to_owned();
        assert_eq!(fixture.ask_within(&fixture.query(""), SHORT).await, unknown(UnknownIdentity::NoAnswer(late)));
    }
    fixture.cluster.heal(node);
    assert_eq!(fixture.ask(&fixture.query("")).await, fixture.id(), "none of these was a refusal");
}

#[tokio::test]
async fn a_cluster_that_refuses_sees_one_query_without_a_signature() {
    for authorization in ["enforced", "not found"] {
        let fixture = Fixture::new(3);
        let kind = match authorization {
            "enforced" => {
                fixture.cluster.authorize(Authorization::Enforce, &[]);
                "MissingAuthenticationTokenException"
            }
            _ => {
                let reply = HttpReply::api_error("ResourceNotFoundException", "no such table");
                for node in fixture.cluster.nodes() {
                    fixture.cluster.say(node, Path::Identity, Content::Reply(reply.clone()));
                }
                "ResourceNotFoundException"
            }
        };
        for _round in 0..20 {
            // Each zone of the cluster, and each restart of a poller, takes its query anew.
            let asked = fixture.cluster.nodes().into_iter().flat_map(|node| [(node, ""), (node, "ttl = \"9s\"")]);
            let replies = join_all(asked.map(|(node, keys)| {
                let (endpoint, query, client) = (fixture.endpoint(node), fixture.query(keys), &fixture.client);
                async move { client.identify(&endpoint, &query, LONG, Keep::Never).await }
            }));
            for reply in replies.await {
                assert!(reply.is_none() || reply == refused(kind), "{reply:?}");
            }
        }
        assert_eq!(fixture.ask(&fixture.query("")).await, refused(kind));
        assert_eq!(fixture.cluster.identity_counts().unsigned, 1);
        let other_place = fixture.query("scheme = \"http\"\ncluster = \"other\"");
        assert_eq!(fixture.ask(&other_place).await, refused(kind));
        assert_eq!(fixture.cluster.identity_counts().unsigned, 2, "an edit that concerns the cluster asks once more");
    }
}

#[tokio::test]
async fn a_node_of_another_cluster_that_refuses_silences_only_itself() {
    let fixture = Fixture::new(3);
    let query = fixture.query("");
    assert_eq!(fixture.ask(&query).await, fixture.id());
    let moved = fixture.cluster.node(1);
    let refusal = HttpReply::api_error("MissingAuthenticationTokenException", "no");
    fixture.cluster.say(moved, Path::Identity, Content::Reply(refusal));
    for _ in 0..5 {
        let reply = fixture.client.identify(&fixture.endpoint(moved), &query, LONG, Keep::Never).await;
        assert_eq!(reply, refused("MissingAuthenticationTokenException"));
        assert_eq!(fixture.ask(&query).await, fixture.id());
    }
    assert_eq!(fixture.cluster.count(moved, Path::Identity), 1);
}

#[tokio::test]
async fn a_signature_opens_a_cluster_that_enforces_authorization() {
    let fixture = Fixture::new(1);
    let file = SecretFile::new("signed", &format!("{SECRET}\n"));
    fixture.cluster.authorize(Authorization::Enforce, &[role(true)]);
    let query = fixture.query(&file.keys());
    assert!(query.is_signed());
    assert_eq!(fixture.ask(&query).await, fixture.id());
    let counts = fixture.cluster.identity_counts();
    assert_eq!((counts.unsigned, counts.signed, counts.authentication_failures), (0, 1, 0));
    assert_eq!(counts.authorization_failures, 0);
    assert!(!format!("{query:?}").contains(SECRET));
    fixture.cluster.authorize(Authorization::Enforce, &[role(false)]);
    assert_eq!(fixture.ask(&query).await, refused("AccessDeniedException"));
    assert_eq!(fixture.ask(&query).await, refused("AccessDeniedException"));
    assert_eq!(fixture.cluster.identity_counts().signed, 2, "after a refusal it is not asked for ten minutes");
}

#[tokio::test]
async fn another_secret_key_is_tried_at_once() {
    let fixture = Fixture::new(1);
    let file = SecretFile::new("rotated", "old");
    fixture.cluster.authorize(Authorization::Enforce, &[role(true)]);
    let query = fixture.query(&file.keys());
    assert_eq!(fixture.ask(&query).await, refused("UnrecognizedClientException"));
    fs::write(&file.0, SECRET).unwrap();
    let given = timeout(LONG, async {
        while fixture.ask(&query).await != fixture.id() {
            sleep(SHORT / 10).await;
        }
    });
    given.await.expect("the file is looked at again");
    assert_eq!(fixture.cluster.identity_counts().signed, 2);
    fs::write(&file.0, "two words").unwrap();
    assert_eq!(fixture.ask(&query).await, fixture.id(), "the last good key stays in use");
}

#[tokio::test]
async fn without_its_secret_key_nothing_is_asked() {
    let fixture = Fixture::new(1);
    let file = SecretFile::new("missing", "");
    let empty = fixture.ask(&fixture.query(&file.keys())).await;
    let why = format!("{}: it has no secret key; write the role's salted_hash into it", file.0.display());
    assert_eq!(empty, unknown(UnknownIdentity::NotAsked(why)));
    fs::remove_file(&file.0).unwrap();
    let missing = fixture.query("identity = { access_key = \"a\", secret_key_file = \"/nonexistent/s\" }");
    let Some(IdentityReply::Unknown(why)) = fixture.ask(&missing).await else { panic!("there is no key") };
    assert_eq!(why.to_string(), "was not asked: cannot read /nonexistent/s: there is no such file");
    assert_eq!(fixture.cluster.count(fixture.cluster.node(0), Path::Identity), 0);
}

#[tokio::test]
async fn a_cluster_that_only_warns_answers_and_counts() {
    let fixture = Fixture::new(1);
    fixture.cluster.authorize(Authorization::Warn, &[role(false)]);
    for _ in 0..3 {
        assert_eq!(fixture.ask(&fixture.query("")).await, fixture.id());
    }
    let counts = fixture.cluster.identity_counts();
    assert_eq!((counts.unsigned, counts.authentication_failures, counts.authorization_failures), (3, 3, 3));
}

#[tokio::test]
async fn the_query_goes_over_the_connection_of_the_probe() {
    let fixture = Fixture::new(1);
    let node = fixture.cluster.node(0);
    for probes in 1..=10 {
        let probe = fixture.client.health_before_identity(&fixture.endpoint(node), LONG).await.unwrap();
        assert_eq!(probe.identify(&fixture.query(""), LONG).await, fixture.id());
        assert_eq!(fixture.cluster.connections(node), probes);
    }
    let hosts: Vec<_> = fixture.cluster.requests(node).into_iter().map(|request| request.host).collect();
    assert!(hosts.iter().all(|host| *host == format!("{node}:{}", fixture.cluster.port())), "{hosts:?}");
}

#[tokio::test]
async fn a_signature_holds_for_an_ipv6_address() {
    let cluster = SimulatedCluster::start_at(&["::1".parse().unwrap()], 0).unwrap();
    let file = SecretFile::new("ipv6", SECRET);
    cluster.authorize(Authorization::Enforce, &[role(true)]);
    let fixture = Fixture { cluster, client: NodeClient::new() };
    assert_eq!(fixture.ask(&fixture.query(&file.keys())).await, fixture.id());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_when_its_zone_is_gone() {
    let fixture = Fixture::new(1);
    let refusal = Refusal { status: 400, kind: String::new() };
    let forgotten = fixture.zone("");
    let remembered = fixture.zone("cluster = \"prod\"");
    let queries = IdentityQueries::default();
    queries.of(&forgotten).unwrap().prepare(NODE, "http://127.0.0.1/").await.unwrap();
    let prepared = queries.of(&remembered).unwrap().prepare(NODE, "http://127.0.0.1/").await.unwrap();
    prepared.grant.report(&IdentityReply::Refused(refusal.clone()));
    tokio::time::advance(SWEEP_INTERVAL * 2).await;
    let query = queries.of(&remembered).unwrap();
    assert_eq!(queries.0.lock().unwrap().queries.len(), 1);
    assert_eq!(query.prepare(NODE, "http://127.0.0.1/").await.unwrap_err(), Some(IdentityReply::Refused(refusal)));
    tokio::time::advance(UNSIGNED_REFUSED_PAUSE).await;
    assert!(query.prepare(NODE, "http://127.0.0.1/").await.is_ok());
    drop(query);
    queries.of(&forgotten).unwrap();
    tokio::time::advance(SWEEP_INTERVAL * 2).await;
    queries.of(&forgotten).unwrap();
    assert_eq!(queries.0.lock().unwrap().queries.len(), 1);
}
