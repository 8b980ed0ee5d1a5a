//! Nodes over TLS: the trusted authorities, the checked names, client certificates, and changes of these
//! files while the server runs.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
};

use alternator_dns::simulation::{NodeCertificate, Path, SimulatedCluster};

use crate::{
    ca::{Authority, Certified},
    daemon::{Daemon, config, scratch, zone_with},
    wait,
};

/// The name in certificates without addresses.
const NAME: &str = "node.scylla.internal";

/// A server with files beside its configuration.
struct Stage {
    directory: PathBuf,
    zones: String,
}

impl Stage {
    fn new() -> Self {
        Self { directory: scratch("tls"), zones: String::new() }
    }

    /// Replaces a file at once, as careful tools do; gives its path.
    fn put(&self, name: &str, content: &str) -> String {
        let path = self.directory.join(name);
        let draft = self.directory.join("draft");
        fs::write(&draft, content).unwrap();
        fs::rename(&draft, &path).unwrap();
        path.display().to_string()
    }

    /// A zone that asks the first node over TLS.
    fn zone(&mut self, name: &str, cluster: &SimulatedCluster, tls: &str) {
        let keys = format!("refresh = \"100ms\"\ntimeout = \"2s\"\nscheme = \"https\"\ntls = {{ {tls} }}\n");
        self.zones += &zone_with(name, &[cluster.node(0)], cluster.port(), &keys);
    }

    fn start(&self) -> Daemon {
        let file = self.directory.join("config.toml");
        fs::write(&file, config(&self.zones)).unwrap();
        Daemon::launch_with(self.directory.clone(), &file, &[("RUST_LOG", "info")])
    }
}

/// A cluster whose nodes share a certificate of this authority.
fn cluster(nodes: usize, authority: &Authority, names: &[&str]) -> SimulatedCluster {
    let cluster = SimulatedCluster::start(nodes).unwrap();
    let certified = match names {
        [] => authority.certify(cluster.nodes()),
        names => authority.certify(names),
    };
    cluster.encrypt(Some(identity(&certified, None)));
    cluster
}

fn identity(certified: &Certified, client_ca: Option<&Authority>) -> NodeCertificate {
    let client_ca = client_ca.map(Authority::pem);
    NodeCertificate::new(&certified.certificate, &certified.key, client_ca.as_deref()).unwrap()
}

#[track_caller]
fn wait_live(daemon: &Daemon, zone: &str) {
    wait::until(&format!("{zone} to be live"), || (daemon.zone(zone)["state"] == "live").then_some(()));
}

/// Waits until the last error of a zone contains this.
#[track_caller]
fn wait_error(daemon: &Daemon, zone: &str, part: &str) {
    wait::until(&format!("{zone} to complain: {part}"), || {
        let error = daemon.zone(zone)["last_error"].as_str().unwrap_or_default().to_owned();
        error.contains(part).then_some(())
    });
}

/// Waits until a node has been asked so many times more.
#[track_caller]
fn wait_polls(cluster: &SimulatedCluster, more: u64) {
    let before = cluster.total(Path::LocalNodes);
    wait::until("more polls", || (cluster.total(Path::LocalNodes) >= before + more).then_some(()));
}

#[test]
fn nodes_are_checked_by_address_against_a_private_authority() {
    let ours = Authority::new("ours");
    let other = Authority::new("other");
    let cluster = cluster(3, &ours, &[]);
    let mut stage = Stage::new();
    let good = stage.put("ca.pem", &ours.pem());
    let wrong = stage.put("other.pem", &other.pem());
    stage.zone("good.example", &cluster, &format!("ca = \"{good}\""));
    stage.zone("wrong.example", &cluster, &format!("ca = \"{wrong}\""));
    stage.zone("system.example", &cluster, "");
    let daemon = stage.start();
    wait_live(&daemon, "good.example.");
    wait::until("three nodes", || (daemon.nodes("good.example").len() == 3).then_some(()));
    let seed = cluster.node(0);
    wait_error(&daemon, "wrong.example.", &format!("{seed} has a certificate that no authority of ours has signed"));
    // A machine without authorities reports that; any other does not know ours.
    wait::until("the system's authorities to refuse it", || {
        daemon.zone("system.example.")["last_error"].as_str().map(drop)
    });
    assert_eq!(cluster.requests(seed)[0].host, format!("{seed}:{}", cluster.port()));
    assert!(daemon.metric("alternator_dns_polls_total{zone=\"wrong.example.\",result=\"tls\"}") > 0.0);
}

#[test]
fn a_name_stands_in_for_the_address() {
    let authority = Authority::new("ours");
    let cluster = cluster(2, &authority, &[NAME, "192.0.2.1"]);
    let mut stage = Stage::new();
    let ca = stage.put("ca.pem", &authority.pem());
    stage.zone("right.example", &cluster, &format!("ca = \"{ca}\", server_name = \"{NAME}\""));
    stage.zone("wrong.example", &cluster, &format!("ca = \"{ca}\", server_name = \"other.internal\""));
    stage.zone("none.example", &cluster, &format!("ca = \"{ca}\""));
    stage.zone("address.example", &cluster, &format!("ca = \"{ca}\", server_name = \"192.0.2.1\""));
    let daemon = stage.start();
    wait_live(&daemon, "right.example.");
    wait_live(&daemon, "address.example.");
    wait::until("both nodes", || (daemon.nodes("right.example").len() == 2).then_some(()));
    let seed = cluster.node(0);
    let unfit = |asked: &str| format!("{seed} has a certificate that is not for {asked}, but for ");
    wait_error(&daemon, "wrong.example.", &unfit("other.internal"));
    wait_error(&daemon, "wrong.example.", NAME);
    wait_error(&daemon, "none.example.", &unfit(&seed.to_string()));
    let asked_for = format!("{NAME}:{}", cluster.port());
    wait::until("the other node to be asked by name", || {
        cluster.requests(cluster.node(1)).iter().any(|request| request.host == asked_for).then_some(())
    });
    assert_eq!(daemon.zone("wrong.example.")["state"], "waiting");
}

#[test]
fn a_client_certificate_is_shown_to_nodes_that_demand_one() {
    let authority = Authority::new("ours");
    let clients = Authority::new("clients");
    let cluster = SimulatedCluster::start(2).unwrap();
    cluster.encrypt(Some(identity(&authority.certify(cluster.nodes()), Some(&clients))));
    let mut stage = Stage::new();
    let ca = stage.put("ca.pem", &authority.pem());
    let Certified { certificate, key } = clients.certify(["resolver"]);
    let cert = stage.put("cert.pem", &certificate);
    let key = stage.put("key.pem", &key);
    let other = authority.certify(["resolver"]);
    let other_cert = stage.put("other.pem", &other.certificate);
    let other_key = stage.put("other.key", &other.key);
    stage.zone("with.example", &cluster, &format!("ca = \"{ca}\", cert = \"{cert}\", key = \"{key}\""));
    stage.zone("without.example", &cluster, &format!("ca = \"{ca}\""));
    stage.zone("other.example", &cluster, &format!("ca = \"{ca}\", cert = \"{other_cert}\", key = \"{other_key}\""));
    stage.zone("mixed.example", &cluster, &format!("ca = \"{ca}\", cert = \"{cert}\", key = \"{other_key}\""));
    let daemon = stage.start();
    wait_live(&daemon, "with.example.");
    wait_error(&daemon, "without.example.", "demands a client certificate");
    wait_error(&daemon, "other.example.", "does not accept our TLS: UnknownCA");
    wait_error(&daemon, "mixed.example.", &format!("{other_key} is not the key of {cert}"));
}

#[test]
fn files_are_read_again_when_they_change_and_kept_while_they_are_bad() {
    let old = Authority::new("old");
    let new = Authority::new("new");
    let cluster = cluster(1, &new, &[]);
    let node = cluster.node(0);
    let mut stage = Stage::new();
    let ca = stage.put("ca.pem", &old.pem());
    stage.zone("a.example", &cluster, &format!("ca = \"{ca}\""));
    let daemon = stage.start();
    wait_error(&daemon, "a.example.", "no authority of ours has signed");
    stage.put("ca.pem", &new.pem());
    wait_live(&daemon, "a.example.");

    stage.put("ca.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    wait::until("a word about the file", || {
        let consequence = "their last good contents stay in use";
        daemon.log().lines().any(|line| line.contains(consequence) && line.contains(&ca)).then_some(())
    });
    // A new connection is checked with the file's former content.
    cluster.stop(node);
    cluster.restart(node).unwrap();
    wait_polls(&cluster, 20);
    assert_eq!(daemon.zone("a.example.")["state"], "live");
    assert_eq!(daemon.log().matches("TLS files cannot be used").count(), 1, "{}", daemon.log());

    // The authority is replaced everywhere: first the nodes', then ours.
    cluster.encrypt(Some(identity(&old.certify(cluster.nodes()), None)));
    cluster.stop(node);
    cluster.restart(node).unwrap();
    wait_error(&daemon, "a.example.", "no authority of ours has signed");
    stage.put("ca.pem", &old.pem());
    wait::until("it to be asked again", || daemon.zone("a.example.")["last_error"].is_null().then_some(()));
}

#[test]
fn a_missing_file_is_named_and_used_once_it_exists() {
    let authority = Authority::new("ours");
    let cluster = cluster(1, &authority, &[]);
    let mut stage = Stage::new();
    let missing = stage.directory.join("ca.pem").display().to_string();
    stage.zone("a.example", &cluster, &format!("ca = \"{missing}\""));
    let daemon = stage.start();
    let sentence = format!("{} was not asked: cannot read {missing}: there is no such file", cluster.node(0));
    wait_error(&daemon, "a.example.", &sentence);
    assert_eq!(cluster.connections(cluster.node(0)), 0);
    stage.put("ca.pem", "no PEM at all");
    wait_error(&daemon, "a.example.", &format!("{missing} has no certificate in PEM"));
    stage.put("ca.pem", &authority.pem());
    wait_live(&daemon, "a.example.");
}

#[test]
fn with_insecure_every_certificate_is_accepted_and_a_warning_logged() {
    let cluster = cluster(2, &Authority::new("unknown"), &["unrelated.example"]);
    let mut stage = Stage::new();
    stage.zone("a.example", &cluster, "insecure = true");
    stage.zone("named.example", &cluster, &format!("insecure = true, server_name = \"{NAME}\""));
    let daemon = stage.start();
    wait_live(&daemon, "a.example.");
    wait_live(&daemon, "named.example.");
    wait_polls(&cluster, 10);
    let warnings = daemon.log().lines().filter(|line| line.contains("are not checked")).count();
    assert_eq!(warnings, 2, "one for each zone: {}", daemon.log());
}

#[test]
fn the_wrong_scheme_fails_cleanly() {
    let authority = Authority::new("ours");
    let secure = cluster(1, &authority, &[]);
    let plain = SimulatedCluster::start(1).unwrap();
    // A plain HTTP server answers in plain HTTP.
    let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
    let deaf = TcpListener::bind((plain.node(0), 0)).unwrap();
    let port = deaf.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = deaf.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&refusal);
        }
    });
    let mut stage = Stage::new();
    let ca = stage.put("ca.pem", &authority.pem());
    stage.zone("good.example", &secure, &format!("ca = \"{ca}\""));
    let fast = "refresh = \"100ms\"\ntimeout = \"500ms\"\n";
    stage.zones += &zone_with("clear.example", &secure.nodes(), secure.port(), fast);
    let https = format!("{fast}scheme = \"https\"\ntls = {{ ca = \"{ca}\" }}\n");
    stage.zones += &zone_with("crypt.example", &plain.nodes(), port, &https);
    let daemon = stage.start();
    wait_live(&daemon, "good.example.");
    wait_error(&daemon, "clear.example.", "could not be asked");
    wait_error(&daemon, "crypt.example.", "does not speak TLS on this port");
    assert_eq!(daemon.zone("clear.example.")["state"], "waiting");
    assert_eq!(daemon.ask("clear.example", "A").ttls(), [2], "its seeds are answered meanwhile");
}
