//! Which cluster a node belongs to: the client that asks, against simulated nodes over real HTTP and HTTPS, and what
//! `check` says of the keys.

use std::{fs, net::IpAddr, path::Path as File, time::Duration};

use alternator_dns::{
    config::{Config, Zone},
    discovery::node::{Endpoint, IdentityReply, Keep, NodeClient},
    simulation::{Authorization, NodeCertificate, Role, SimulatedCluster},
};

use crate::{
    ca::Authority,
    daemon::{command, scratch, zone_with},
};

/// Patience with nodes that answer: long, because the machine may be busy.
const LONG: Duration = Duration::from_secs(10);

const SECRET: &str = "$6$rounds$0123456789abcdef./";

fn zone(cluster: &SimulatedCluster, keys: &str) -> Zone {
    let text = zone_with("a.example", &[cluster.node(0)], cluster.port(), keys);
    Config::parse(File::new("z.toml"), text.as_bytes()).unwrap().zones.into_values().next().unwrap()
}

async fn ask(client: &NodeClient, zone: &Zone, address: IpAddr) -> Option<IdentityReply> {
    let endpoint = Endpoint { scheme: zone.cluster.scheme.clone(), address, port: zone.cluster.port };
    client.identify(&endpoint, &client.identity_query(zone).unwrap(), LONG, Keep::Shortly).await
}

#[tokio::test]
async fn a_cluster_that_refuses_sees_one_unsigned_query() {
    let cluster = SimulatedCluster::start(5).unwrap();
    cluster.authorize(Authorization::Enforce, &[]);
    let client = NodeClient::new();
    for round in 0..20 {
        for node in cluster.nodes() {
            let reply = ask(&client, &zone(&cluster, &format!("ttl = \"{round}s\"\n")), node).await;
            let Some(IdentityReply::Refused(refusal)) = reply else { panic!("{reply:?}") };
            assert_eq!(refusal.to_string(), "400 MissingAuthenticationTokenException");
        }
    }
    let counts = cluster.identity_counts();
    assert_eq!((counts.unsigned, counts.authentication_failures), (1, 1));
}

#[tokio::test]
async fn a_signed_query_over_https_is_answered() {
    let directory = scratch("identity");
    let authority = Authority::new("ours");
    let cluster = SimulatedCluster::start(2).unwrap();
    let certified = authority.certify(cluster.nodes());
    cluster.encrypt(Some(NodeCertificate::new(&certified.certificate, &certified.key, None).unwrap()));
    let role = Role { name: "alternator_dns".into(), secret_key: SECRET.into(), may_read: true };
    cluster.authorize(Authorization::Enforce, &[role]);
    let ca = directory.join("ca.pem");
    let secret = directory.join("secret_key");
    fs::write(&ca, authority.pem()).unwrap();
    fs::write(&secret, SECRET).unwrap();
    let keys = format!(
        "scheme = \"https\"\ntls = {{ ca = \"{}\" }}\nidentity = {{ access_key = \"alternator_dns\", secret_key_file = \"{}\" }}\n",
        ca.display(),
        secret.display()
    );
    let client = NodeClient::new();
    for node in cluster.nodes() {
        let id = cluster.cluster_id().map(IdentityReply::Id);
        assert_eq!(ask(&client, &zone(&cluster, &keys), node).await, id);
    }
    let counts = cluster.identity_counts();
    assert_eq!((counts.unsigned, counts.signed, counts.authentication_failures), (0, 2, 0));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn check_names_a_secret_key_that_cannot_be_used() {
    let directory = scratch("identity-check");
    let file = directory.join("config.toml");
    let secret = directory.join("secret_key");
    let keys = format!("identity = {{ access_key = \"dns\", secret_key_file = \"{}\" }}\n", secret.display());
    fs::write(&file, zone_with("a.example", &["10.0.0.1".parse().unwrap()], 8000, &keys)).unwrap();
    let checked = || {
        let output = command(&["check", "--config"]).arg(&file).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let name = secret.display();
    let consequence = "without the key no node is asked for the id of its cluster";
    let missing =
        format!("warning: identity of zone a.example.: cannot read {name}: there is no such file; {consequence}\n");
    assert!(checked().starts_with(&missing), "{}", checked());
    fs::write(&secret, "not one word").unwrap();
    let words = format!("{name}: it has more than one word; only the secret key belongs there; {consequence}\n");
    assert!(checked().contains(&words), "{}", checked());
    fs::write(&secret, SECRET).unwrap();
    assert!(!checked().contains("warning") && !checked().contains(SECRET));
    fs::remove_dir_all(directory).unwrap();
}
