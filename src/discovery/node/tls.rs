//! Clients for nodes that speak TLS, and the files that they need.
//!
//! Zones with equal `tls` share everything: the files are read once, and looked at again when they are used, once a
//! second at most. Files that have become bad are reported, and their last good contents stay in use. Files that are bad
//! from the start are no error of the configuration: each poll fails with a sentence about them.

use std::{
    convert::Infallible,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use reqwest::Url;
use rustls::{
    ClientConfig, Error as TlsError, RootCertStore,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    pki_types::ServerName,
};
use tokio::{
    sync::{Mutex as Turn, OwnedMutexGuard},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    connections::{Clients, Keep},
    expiring::ExpiringCache,
    verifier::{NodeVerifier, Trust, TrustError},
};
use crate::{
    config::Tls,
    net::{
        certificate::{CertificateDefect, CertificateFacts},
        client::{self, Client},
        pem::{self, PemError},
        roots::{RootsError, SystemRoots},
        watched::{FileReader, Look, WatchError, WatchedFiles},
    },
};

/// Between two looks at the same files.
const LOOK: Duration = Duration::from_secs(1);

/// How long a caller that has a client already waits for a look. Local files take a hundredth of that; a file
/// system that hangs must not delay polls.
const LOOK_WAIT_MAX: Duration = Duration::from_millis(250);

/// The largest file that is read. The bundle of all public authorities takes a quarter of a megabyte.
pub const TLS_FILE_OCTETS_MAX: u64 = 2 << 20;

/// Files that no zone uses are forgotten after so long. It is more than the longest refresh, so that a zone never loses
/// the last good contents of its files.
const FILES_KEPT: Duration = Duration::from_secs(2 * 3600);

/// Clients for every value of `tls`. Clones share them.
#[derive(Clone, Debug)]
pub struct TlsClients(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    values: Mutex<ExpiringCache<Tls, Arc<Files>>>,
    reader: FileReader,
    roots: SystemRoots,
    builder: TlsBuilder,
}

/// A client that is ready for a node.
#[derive(Debug)]
pub struct Ready {
    pub client: Client,
    /// The name or address in the URL of a request, without a port.
    pub host: String,
}

/// Why there is no client for a node. Each reads as a sentence: what is wrong with which file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TlsClientError {
    /// No look at the files has ended yet.
    #[error("its files are not read")]
    NotRead,
    /// The files cannot be used.
    #[error(transparent)]
    Files(#[from] WatchError<TlsFileError>),
}

impl TlsClients {
    /// Reads nothing yet.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            values: Mutex::new(ExpiringCache::new(FILES_KEPT)),
            reader: FileReader::new(),
            roots: SystemRoots::default(),
            builder: TlsBuilder { provider: Arc::new(ring::default_provider()) },
        }))
    }

    /// A client for a node, from files that were looked at a moment ago.
    ///
    /// # Errors
    /// A file cannot be used.
    pub async fn ready(&self, tls: &Tls, node: IpAddr, keep: Keep) -> Result<Ready, TlsClientError> {
        let known = || Ok::<_, Infallible>(Arc::new(Files::new(tls.clone())));
        let Ok(files) = lock(&self.0.values).get_or_make(tls.clone(), Instant::now(), known);
        files.freshen(&self.0).await;
        Ok(files.setup()?.ready(node, keep))
    }
}

/// What is wrong with a node's TLS, as the end of a sentence that starts with the node.
pub fn sentence(error: &TlsError) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Unfit};
    match error {
        // An authority of the same name with another key is another authority.
        TlsError::InvalidCertificate(Unfit::UnknownIssuer | Unfit::BadSignature) => {
            "has a certificate that no authority of ours has signed".into()
        }
        TlsError::InvalidCertificate(Unfit::NotValidForNameContext { expected, presented }) => {
            // Each is written as a kind and a value: DnsName("a.example").
            let value = |name: &String| match name.split_once('(') {
                Some((_, value)) => value.trim_matches(['"', ')']).to_owned(),
                None => name.clone(),
            };
            let presented: Vec<_> = presented.iter().map(value).collect();
            let presented = if presented.is_empty() { "nothing".into() } else { presented.join(", ") };
            format!("has a certificate that is not for {}, but for {presented}", expected.to_str())
        }
        TlsError::InvalidCertificate(Unfit::Expired | Unfit::ExpiredContext { .. }) => {
            "has a certificate that has expired".into()
        }
        TlsError::InvalidCertificate(Unfit::Other(other)) if other.0.is::<CertificateDefect>() => {
            format!("has a certificate that {}", other.0)
        }
        TlsError::InvalidCertificate(
            Unfit::UnsupportedSignatureAlgorithmContext { .. }
            | Unfit::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ) => "has a certificate that is signed with an algorithm that is not supported, such as SHA-1".into(),
        TlsError::InvalidCertificate(Unfit::InvalidPurpose | Unfit::InvalidPurposeContext { .. }) => {
            "has a certificate that is not for servers; make it again with the extended key usage serverAuth".into()
        }
        // webpki's error, which rustls has no name for.
        TlsError::InvalidCertificate(Unfit::Other(other))
            if format!("{:?}", other.0) == "UnsupportedCriticalExtension" =>
        {
            "has a certificate with a critical extension that is not known here; make it again without that".into()
        }
        TlsError::InvalidCertificate(unfit) => format!("has a certificate that does not fit: {unfit}"),
        TlsError::AlertReceived(Alert::HandshakeFailure) => {
            "has no algorithm of TLS in common with this server; its key \
             must be ECDSA P-256 or P-384, Ed25519, or RSA, and its TLS version 1.2 or 1.3"
                .into()
        }
        TlsError::AlertReceived(Alert::CertificateRequired) => "demands a client certificate".into(),
        TlsError::AlertReceived(alert) => format!("does not accept our TLS: {alert:?}"),
        TlsError::InvalidMessage(_) => "does not speak TLS on this port".into(),
        other => format!("cannot be spoken to over TLS: {other}"),
    }
}

/// Nothing panics while it holds one of these locks, so the content is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The files of one value of `tls`, and what was made of them.
#[derive(Debug)]
struct Files {
    tls: Tls,
    /// Locked during a look.
    watched: Arc<Turn<Watched>>,
    state: Mutex<State>,
}

type Watched = WatchedFiles<TlsSetup, TlsFileError>;

/// What the last look found; readable during the next one.
#[derive(Debug, Default)]
struct State {
    /// When it ended.
    looked: Option<Instant>,
    /// What is used.
    setup: Option<Arc<TlsSetup>>,
    /// Why the files as they are now cannot be used.
    error: Option<WatchError<TlsFileError>>,
}

impl Files {
    fn new(tls: Tls) -> Self {
        let watched = WatchedFiles::new(tls_files(&tls), TLS_FILE_OCTETS_MAX);
        Self { tls, watched: Arc::new(Turn::new(watched)), state: Mutex::default() }
    }

    fn setup(&self) -> Result<Arc<TlsSetup>, TlsClientError> {
        let state = lock(&self.state);
        state.setup.clone().ok_or_else(|| state.error.clone().map_or(TlsClientError::NotRead, TlsClientError::Files))
    }

    /// Looks at the files if the last look is long ago. A caller that has a client already does not wait for the
    /// look of another, and not for long for its own.
    async fn freshen(self: &Arc<Self>, shared: &Arc<Shared>) {
        let (fresh, known) = {
            let state = lock(&self.state);
            (state.looked.is_some_and(|looked| looked.elapsed() < LOOK), state.setup.is_some())
        };
        if fresh {
            return;
        }
        let watched = match self.watched.clone().try_lock_owned() {
            Ok(watched) => watched,
            Err(_) if known => return,
            Err(_) => return drop(self.watched.lock().await),
        };
        let look = tokio::spawn(self.clone().look(watched, shared.clone()));
        if known {
            // A late look serves the next caller.
            let _ = timeout(LOOK_WAIT_MAX, look).await;
        } else {
            // A panic has been reported by its hook, and leaves things as they are.
            let _ = look.await;
        }
    }

    /// Reads the files if they have changed, and makes of them what is used from now on.
    async fn look(self: Arc<Self>, mut watched: OwnedMutexGuard<Watched>, shared: Arc<Shared>) {
        let is_first = watched.value().is_none();
        let roots = if self.tls.ca.is_some() || self.tls.insecure { None } else { Some(shared.roots.get().await) };
        let tls = self.tls.clone();
        let builder = shared.builder.clone();
        let make = move |contents: Vec<Vec<u8>>| builder.setup(&tls, &PemFiles::new(&tls, contents), roots);
        match watched.look(&shared.reader, make).await {
            Look::Unchanged => {}
            Look::Changed(_) if is_first => {}
            Look::Changed(_) => info!(files = watched.names(), "TLS files have changed and are used from now on"),
            Look::Recovered => info!(files = watched.names(), "TLS files are good again"),
            Look::Failed(error) => {
                let consequence = if is_first { "no node is asked" } else { "their last good contents stay in use" };
                warn!(why = %error, "TLS files cannot be used; {consequence}");
            }
        }
        *lock(&self.state) =
            State { looked: Some(Instant::now()), setup: watched.value().cloned(), error: watched.error().cloned() };
    }
}

/// Checks the contents of the files that a value of `tls` names, in the order of [`tls_files`].
///
/// # Errors
/// No node could be asked with them.
pub fn check_tls_files(tls: &Tls, contents: Vec<Vec<u8>>) -> Result<(), TlsFileError> {
    let builder = TlsBuilder { provider: Arc::new(ring::default_provider()) };
    // Whether the system has authorities is not asked.
    let system = Ok(Arc::new(RootCertStore::empty()));
    builder.setup(tls, &PemFiles::new(tls, contents), Some(system)).map(drop)
}

/// The files that are needed: authorities, then the client's certificate and key. Without checks no authority is.
pub fn tls_files(tls: &Tls) -> Vec<PathBuf> {
    let ca = tls.ca.clone().filter(|_| !tls.insecure);
    let client = tls.client.iter().flat_map(|(cert, key)| [cert.clone(), key.clone()]);
    ca.into_iter().chain(client).collect()
}

/// What the files contain.
struct PemFiles {
    ca: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl PemFiles {
    /// Takes the contents of [`tls_files`] apart again.
    fn new(tls: &Tls, contents: Vec<Vec<u8>>) -> Self {
        let mut contents = contents.into_iter();
        let ca = if tls.ca.is_some() && !tls.insecure { contents.next() } else { None };
        let client = contents.next().zip(contents.next());
        Self { ca, client }
    }
}

/// Why contents of TLS files cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TlsFileError {
    #[error(transparent)]
    Pem(#[from] PemError),
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("{} holds a certificate that {defect}", path.display())]
    Defect { path: PathBuf, defect: CertificateDefect },
    #[error("{} is not the key of {}", key.display(), cert.display())]
    OtherKey { cert: PathBuf, key: PathBuf },
    #[error("{} and {} cannot be used: {reason}", cert.display(), key.display())]
    Client { cert: PathBuf, key: PathBuf, reason: String },
    #[error("server_name is nothing that a certificate can bear")]
    ServerName,
    #[error("the authorities cannot be used: {0}")]
    Authorities(String),
    #[error("{0}")]
    Library(String),
}

/// Makes the TLS setup of a zone from the contents of its files.
#[derive(Clone, Debug)]
struct TlsBuilder {
    provider: Arc<CryptoProvider>,
}

type Roots = Result<Arc<RootCertStore>, RootsError>;

impl TlsBuilder {
    /// `system` are the system's authorities, where they are needed.
    fn setup(&self, tls: &Tls, contents: &PemFiles, system: Option<Roots>) -> Result<TlsSetup, TlsFileError> {
        let library = |error: &dyn std::fmt::Display| TlsFileError::Library(error.to_string());
        let builder = ClientConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| library(&error))?;
        let verifier = Arc::new(self.verifier(tls, contents, system)?);
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match (&tls.client, &contents.client) {
            (Some((cert, key)), Some((cert_pem, key_pem))) => {
                let chain = pem::certificates(cert, cert_pem)?;
                let secret = pem::private_key(key, key_pem)?;
                let defect = chain.first().and_then(|own| CertificateFacts::parse(own)?.own_defect());
                if let Some(defect) = defect {
                    return Err(TlsFileError::Defect { path: cert.clone(), defect });
                }
                builder.with_client_auth_cert(chain, secret).map_err(|error| match error {
                    TlsError::InconsistentKeys(_) => TlsFileError::OtherKey { cert: cert.clone(), key: key.clone() },
                    error => TlsFileError::Client { cert: cert.clone(), key: key.clone(), reason: error.to_string() },
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        // A resumed session would spare a node from showing its certificate, which may have expired since; a client
        // that is new to the node would see it.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let host = tls.server_name.as_deref().and_then(in_url);
        let name = host.clone().and_then(|host| ServerName::try_from(host).ok());
        Ok(TlsSetup { clients: Clients::new(Some(client::Tls { config: Arc::new(config), name })), host })
    }

    fn verifier(&self, tls: &Tls, contents: &PemFiles, system: Option<Roots>) -> Result<NodeVerifier, TlsFileError> {
        if tls.insecure {
            return Ok(NodeVerifier::accepting_all(&self.provider));
        }
        let name = tls.server_name.clone().map(|name| ServerName::try_from(name).map_err(|_| TlsFileError::ServerName));
        let trust = match (&tls.ca, &contents.ca, system) {
            (Some(path), Some(octets), _) => Trust::of_file(path, octets)?,
            (_, _, Some(system)) => Trust::of_system(system?),
            _ => return Err(RootsError::None { why: String::new() }.into()),
        };
        let verifier = NodeVerifier::new(trust, name.transpose()?, &self.provider);
        verifier.map_err(|error| TlsFileError::Authorities(error.to_string()))
    }
}

/// A name as an URL takes it; `None` for an address, and for what an URL would take for something else. Such a name
/// is checked all the same, but not sent to the nodes.
fn in_url(name: &str) -> Option<String> {
    let url = Url::parse(&format!("https://{name}/")).ok()?;
    url.domain().filter(|domain| domain.eq_ignore_ascii_case(name)).map(str::to_owned)
}

/// What is made of the files of one value of `tls`.
#[derive(Debug)]
struct TlsSetup {
    clients: Clients,
    /// The host name of the requests, which nodes get as SNI; `None`: each is asked by its address.
    host: Option<String>,
}

impl TlsSetup {
    fn ready(&self, node: IpAddr, keep: Keep) -> Ready {
        let host = self.host.clone().unwrap_or_else(|| in_brackets(node));
        Ready { client: self.clients.of(keep), host }
    }
}

/// An address as an URL has it.
pub fn in_brackets(node: IpAddr) -> String {
    match node {
        IpAddr::V4(node) => node.to_string(),
        IpAddr::V6(node) => format!("[{node}]"),
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU16, path::PathBuf};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::{
        config::Scheme,
        discovery::node::{Endpoint, FetchError, Keep, NodeClient},
        simulation::{Delivery, NodeCertificate, Path as Asked, SimulatedCluster},
        test_directory::TestDirectory,
    };

    /// The timeout for nodes that answer: long, because the machine may be busy.
    const LONG: Duration = Duration::from_secs(10);

    /// A certificate that vouches for itself, and its key.
    fn certificate(names: &[String]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// A cluster that speaks TLS under these names, and its certificate in a file.
    fn cluster(directory: &TestDirectory, nodes: usize, names: &[String]) -> (SimulatedCluster, PathBuf) {
        let cluster = SimulatedCluster::start(nodes).unwrap();
        let addresses = cluster.nodes().iter().map(IpAddr::to_string).collect::<Vec<_>>();
        let (certificate, key) = certificate(if names.is_empty() { &addresses } else { names });
        cluster.encrypt(Some(NodeCertificate::new(&certificate, &key, None).unwrap()));
        (cluster, directory.put("ca.pem", &certificate))
    }

    fn endpoint(cluster: &SimulatedCluster, node: usize, tls: &Tls) -> Endpoint {
        let port = NonZeroU16::new(cluster.port()).unwrap();
        Endpoint { scheme: Scheme::Https(tls.clone()), address: cluster.node(node), port }
    }

    #[tokio::test]
    async fn polls_keep_their_connection_and_probes_do_not() {
        let directory = TestDirectory::new("connections");
        let (cluster, ca) = cluster(&directory, 2, &[]);
        let alternator = NodeClient::new();
        let tls = Tls { ca: Some(ca), ..Tls::default() };
        let first = endpoint(&cluster, 0, &tls);
        for _ in 0..3 {
            alternator.local_nodes(&first, None, LONG, Keep::Shortly).await.unwrap();
        }
        assert_eq!(cluster.connections(cluster.node(0)), 1);
        for _ in 0..3 {
            alternator.health(&first, LONG).await.unwrap();
        }
        assert_eq!(cluster.connections(cluster.node(0)), 4);
        cluster.deliver(cluster.node(0), Asked::Health, Delivery::ResetMidBody);
        assert_eq!(alternator.health(&first, LONG).await, Err(FetchError::Reset));
        cluster.stop(cluster.node(0));
        assert_eq!(alternator.health(&first, LONG).await, Err(FetchError::Refused));
    }

    #[tokio::test]
    async fn a_name_leads_to_the_very_node_each_time() {
        let directory = TestDirectory::new("names");
        let (cluster, ca) =
            cluster(&directory, 3, &["Node.internal".into(), "192.0.2.7".into(), "a_b.internal".into()]);
        let alternator = NodeClient::new();
        for name in ["node.internal", "192.0.2.7", "a_b.internal"] {
            let tls = Tls { ca: Some(ca.clone()), server_name: Some(name.into()), ..Tls::default() };
            for round in 1..=2 {
                for node in 0..3 {
                    let endpoint = endpoint(&cluster, node, &tls);
                    let before = cluster.count(cluster.node(node), Asked::LocalNodes);
                    alternator.local_nodes(&endpoint, None, LONG, Keep::Shortly).await.unwrap();
                    assert_eq!(cluster.count(cluster.node(node), Asked::LocalNodes), before + 1, "{name} {round}");
                    alternator.health(&endpoint, LONG).await.unwrap();
                }
            }
        }
        let polls = 3;
        let probes = 3 * 2;
        assert_eq!(cluster.connections(cluster.node(2)), polls + probes);
    }

    #[tokio::test]
    async fn a_certificate_that_does_not_fit_is_no_refusal() {
        let directory = TestDirectory::new("unfit");
        let (cluster, ca) = cluster(&directory, 1, &["node.internal".into()]);
        let alternator = NodeClient::new();
        let tls = Tls { ca: Some(ca), server_name: Some("other.internal".into()), ..Tls::default() };
        let error = alternator.health(&endpoint(&cluster, 0, &tls), LONG).await.unwrap_err();
        let sentence = "has a certificate that is not for other.internal, but for node.internal";
        assert_eq!((error.to_string(), error.is_refusal()), (sentence.into(), false));
    }

    #[tokio::test]
    async fn every_bad_file_is_named_with_what_is_wrong() {
        let directory = TestDirectory::new("bad");
        let (certificate, key) = certificate(&["a".into()]);
        let (_, other_key) = super::tests::certificate(&["b".into()]);
        let good = directory.put("good.pem", &certificate);
        let good_key = directory.put("good.key", &key);
        let refusal = async |ca: &PathBuf, client: Option<(&PathBuf, &PathBuf)>| {
            let client = client.map(|(cert, key)| (cert.clone(), key.clone()));
            let tls = Tls { ca: Some(ca.clone()), client, ..Tls::default() };
            let node = "127.0.0.1".parse().unwrap();
            let made = TlsClients::new().ready(&tls, node, Keep::Never).await;
            made.map(drop).map_err(|error| error.to_string().replace(&directory.path().display().to_string(), ""))
        };
        assert_eq!(refusal(&good, Some((&good, &good_key))).await, Ok(()));
        let half = &certificate[..certificate.len() / 2];
        for (content, sentence) in [
            ("", "/ca.pem has no certificate in PEM"),
            (&*key, "/ca.pem has no certificate in PEM"),
            (half, "/ca.pem is not good PEM: a section has no end"),
            (&certificate.replace('M', "*"), "/ca.pem is not good PEM: a section is not base64"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "/ca.pem has no certificate that can be used",
            ),
        ] {
            assert_eq!(refusal(&directory.put("ca.pem", content), None).await.unwrap_err(), sentence);
        }
        assert_eq!(refusal(&directory.path().into(), None).await.unwrap_err(), "cannot read : it is a directory");
        let missing = directory.file("missing");
        assert_eq!(refusal(&missing, None).await.unwrap_err(), "cannot read /missing: there is no such file");
        let other = directory.put("other.key", &other_key);
        let mismatch = refusal(&good, Some((&good, &other))).await.unwrap_err();
        assert_eq!(mismatch, "/other.key is not the key of /good.pem");
        let none = refusal(&good, Some((&good, &good))).await.unwrap_err();
        assert_eq!(none, "/good.pem has no private key in PEM, or only an encrypted one");
    }

    #[test]
    fn only_what_an_url_takes_for_a_name_is_asked_for_by_name() {
        assert_eq!(in_url("node.internal").as_deref(), Some("node.internal"));
        assert_eq!(in_url("Node.internal").as_deref(), Some("node.internal"));
        for other in ["192.0.2.7", "::1", "node.1", "0x7f.1", ""] {
            assert_eq!(in_url(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn files_with_the_same_contents_keep_their_connections() {
        let directory = TestDirectory::new("same");
        let (certificate, _) = certificate(&["a".into()]);
        let (other, _) = super::tests::certificate(&["b".into()]);
        let tls = Tls { ca: Some(directory.put("ca.pem", &certificate)), ..Tls::default() };
        let TlsClients(shared) = TlsClients::new();
        let files = Arc::new(Files::new(tls));
        let look = async || {
            let watched = files.watched.clone().lock_owned().await;
            files.clone().look(watched, shared.clone()).await;
            files.setup().unwrap()
        };
        let first = look().await;
        directory.put("ca.pem", &certificate);
        assert!(Arc::ptr_eq(&first, &look().await));
        directory.put("ca.pem", "bad");
        assert!(Arc::ptr_eq(&first, &look().await));
        assert!(lock(&files.state).error.is_some());
        directory.put("ca.pem", &certificate);
        assert!(Arc::ptr_eq(&first, &look().await));
        assert!(lock(&files.state).error.is_none());
        directory.put("ca.pem", &other);
        assert!(!Arc::ptr_eq(&first, &look().await));
    }
}
