//! Clients for nodes that speak TLS, and the files that they need.
//!
//! Zones with equal `tls` share everything: the files are read once, and looked at again when they are used, once a
//! second at most. Files that have become bad are said to be so, and what they said before goes on being used. Files
//! that are bad from the start are weather: each poll fails with a sentence about them.

use std::{
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use reqwest::{Client, Url};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    sync::{Mutex as Turn, Semaphore},
    task::spawn_blocking,
    time::timeout,
};
use tracing::{info, warn};

use super::{
    connections::{Clients, Keep, client},
    expiring::ExpiringCache,
};
use crate::config::{Tls, content_hash, pem, read_file};

/// Between two looks at the same files.
const LOOK: Duration = Duration::from_secs(1);

/// How long somebody who could go on with what is known waits for a look. Local files take a hundredth of that; a
/// file system that hangs must not hold up polls.
const LOOK_PATIENCE: Duration = Duration::from_millis(250);

/// Looks at files in flight, for all values of `tls` together: each blocks a thread.
const LOOKS_MAX: usize = 16;

/// A file that changed so short a time ago may change again without looking different: times of files are as coarse
/// as this.
const SETTLED: Duration = Duration::from_secs(2);

/// Files that nobody uses are forgotten after so long. It is more than the longest refresh, so that a zone never
/// loses what its files said before they became bad.
const FILES_KEPT: Duration = Duration::from_secs(2 * 3600);

/// The client of a node that nobody asks is forgotten after so long: it has long lost its connection, and the node
/// has probably left.
const NODE_KEPT: Duration = Duration::from_secs(300);

/// Clients for every value of `tls`. Clones share them.
#[derive(Clone, Debug)]
pub struct TlsClients(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    values: Mutex<ExpiringCache<Tls, Arc<Files>>>,
    slots: Arc<Semaphore>,
    builder: Arc<TlsBuilder>,
}

/// A client that is ready for a node.
#[derive(Debug)]
pub struct Ready {
    pub client: Client,
    /// What stands between `https://` and the path.
    pub authority: String,
}

impl TlsClients {
    /// Reads nothing yet.
    pub fn new() -> Self {
        let builder = TlsBuilder { provider: Arc::new(ring::default_provider()), system: Mutex::default() };
        let values = Mutex::new(ExpiringCache::new(FILES_KEPT));
        Self(Arc::new(Shared { values, slots: Arc::new(Semaphore::new(LOOKS_MAX)), builder: Arc::new(builder) }))
    }

    /// A client for a node, from files that were looked at a moment ago.
    ///
    /// # Errors
    /// A sentence: what is wrong with which file.
    pub async fn ready(&self, tls: &Tls, node: SocketAddr, keep: Keep) -> Result<Ready, String> {
        let known =
            || Ok::<_, String>(Arc::new(Files { tls: tls.clone(), turn: Arc::default(), state: Mutex::default() }));
        let files = lock(&self.0.values).get_or_make(tls.clone(), Instant::now(), known)?;
        files.freshen(&self.0).await;
        let setup = files.setup()?;
        setup.ready(node, keep)
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
        TlsError::InvalidCertificate(unfit) => format!("has a certificate that does not fit: {unfit}"),
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
    /// Whose turn it is to look.
    turn: Arc<Turn<()>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When a look last ended.
    looked: Option<Instant>,
    /// How the files looked from outside; `None` where they may change without looking different.
    stamps: Option<Vec<Stamp>>,
    /// What is used.
    setup: Option<Arc<TlsSetup>>,
    /// Why the files as they are now cannot be used.
    complaint: Option<String>,
}

impl Files {
    fn setup(&self) -> Result<Arc<TlsSetup>, String> {
        let state = lock(&self.state);
        state.setup.clone().ok_or_else(|| state.complaint.clone().unwrap_or_else(|| "its files are not read".into()))
    }

    /// Looks at the files if the last look is long ago. Who can go on without does not wait for others, nor for long.
    async fn freshen(self: &Arc<Self>, shared: &Shared) {
        let (fresh, known) = {
            let state = lock(&self.state);
            (state.looked.is_some_and(|looked| looked.elapsed() < LOOK), state.setup.is_some())
        };
        if fresh {
            return;
        }
        let turn = match self.turn.clone().try_lock_owned() {
            Ok(turn) => turn,
            Err(_) if known => return,
            Err(_) => return drop(self.turn.lock().await),
        };
        // The semaphore is never closed; if it were, nobody would look any more.
        let Ok(slot) = shared.slots.clone().acquire_owned().await else { return };
        let (files, builder) = (self.clone(), shared.builder.clone());
        let look = spawn_blocking(move || {
            files.look(&builder);
            drop((turn, slot));
        });
        if known {
            // Late or not, it tells the next one.
            let _ = timeout(LOOK_PATIENCE, look).await;
        } else {
            // A panic has been reported by the thread, and leaves things as they are.
            let _ = look.await;
        }
    }

    /// Reads the files if they have changed, and makes of them what is used from now on. It may block.
    fn look(&self, builder: &TlsBuilder) {
        let stamps = stamps(&self.tls);
        let unchanged = {
            let state = lock(&self.state);
            state.complaint.is_none() && state.setup.is_some() && state.stamps.is_some() && state.stamps == stamps
        };
        let read = if unchanged { None } else { Some(PemFiles::read(&self.tls)) };
        let before = lock(&self.state).setup.clone();
        let made = read.map(|read| {
            let pem_files = read?;
            match before {
                Some(before) if before.fingerprint == pem_files.fingerprint() => Ok(before),
                _ => Ok(Arc::new(builder.setup(&self.tls, &pem_files)?)),
            }
        });
        let mut state = lock(&self.state);
        state.looked = Some(Instant::now());
        match made {
            None => {}
            Some(Ok(setup)) => {
                if state.setup.as_ref().is_some_and(|before| !Arc::ptr_eq(before, &setup)) {
                    info!(files = self.names(), "TLS files have changed and are used from now on");
                } else if state.complaint.is_some() {
                    info!(files = self.names(), "TLS files are good again");
                }
                *state = State { stamps, setup: Some(setup), complaint: None, looked: state.looked };
            }
            Some(Err(complaint)) => {
                if state.complaint.as_ref() != Some(&complaint) {
                    let then = if state.setup.is_some() {
                        "what they said before goes on being used"
                    } else {
                        "nobody is asked"
                    };
                    warn!(why = complaint, "TLS files cannot be used; {then}");
                }
                state.complaint = Some(complaint);
            }
        }
    }

    fn names(&self) -> String {
        let names: Vec<_> = paths(&self.tls).map(|path| path.display().to_string()).collect();
        names.join(", ")
    }
}

/// The files that are needed. Without checks no authority is.
fn paths(tls: &Tls) -> impl Iterator<Item = &Path> {
    let ca = tls.ca.as_deref().filter(|_| !tls.insecure);
    let client = tls.client.iter().flat_map(|(cert, key)| [cert.as_path(), key.as_path()]);
    ca.into_iter().chain(client)
}

/// What changes when a file is written, replaced, or another one is linked to.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Stamp {
    place: (u64, u64),
    octets: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// How all files look; `None` when one is not there, or may change without looking different.
fn stamps(tls: &Tls) -> Option<Vec<Stamp>> {
    let now = SystemTime::now();
    let stamp = |path: &Path| {
        let seen = path.metadata().ok()?;
        let changed = UNIX_EPOCH + Duration::from_secs(seen.ctime().try_into().ok()?);
        let settled = now.duration_since(changed).is_ok_and(|age| age > SETTLED);
        settled.then(|| Stamp {
            place: (seen.dev(), seen.ino()),
            octets: seen.len(),
            modified: (seen.mtime(), seen.mtime_nsec()),
            changed: (seen.ctime(), seen.ctime_nsec()),
        })
    };
    paths(tls).map(stamp).collect()
}

/// What the files contain.
struct PemFiles {
    ca: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl PemFiles {
    fn read(tls: &Tls) -> Result<Self, String> {
        let read = |path: &Path| {
            // Whoever opens a pipe may wait for ever.
            if path.metadata().is_ok_and(|seen| !seen.is_file()) {
                return Err(format!("{} is not a file", path.display()));
            }
            read_file(path).map_err(|error| error.to_string())
        };
        let ca = tls.ca.as_deref().filter(|_| !tls.insecure).map(read).transpose()?;
        let client = tls.client.as_ref().map(|(cert, key)| Ok::<_, String>((read(cert)?, read(key)?))).transpose()?;
        Ok(Self { ca, client })
    }

    /// What tells edits apart, in place of contents that would have to be kept.
    fn fingerprint(&self) -> Vec<String> {
        let client = self.client.iter().flat_map(|(cert, key)| [cert, key]);
        self.ca.iter().chain(client).map(|octets| content_hash(octets)).collect()
    }
}

/// Makes outfits of what files contain.
#[derive(Debug)]
struct TlsBuilder {
    provider: Arc<CryptoProvider>,
    /// The system's authorities, read when they are first needed: 120 kB, so one for all.
    system: Mutex<Option<Arc<RootCertStore>>>,
}

impl TlsBuilder {
    fn setup(&self, tls: &Tls, pem_files: &PemFiles) -> Result<TlsSetup, String> {
        let builder = ClientConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(self.check(tls, pem_files)?));
        let mut config = match (&tls.client, &pem_files.client) {
            (Some((cert, key)), Some((cert_pem, key_pem))) => {
                let (chain, secret) = (pem::certificates(cert, cert_pem)?, pem::private_key(key, key_pem)?);
                builder.with_client_auth_cert(chain, secret).map_err(|error| match error {
                    TlsError::InconsistentKeys(_) => format!("{} is not the key of {}", key.display(), cert.display()),
                    error => format!("{} and {} cannot be used: {error}", cert.display(), key.display()),
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        // A resumed session would spare a node from showing its certificate, which may have expired since; a client
        // that is new to the node would see it.
        config.resumption = Resumption::disabled();
        let clients = Clients::new(&config).map_err(|error| error.to_string())?;
        let host = tls.server_name.as_deref().and_then(in_url);
        Ok(TlsSetup {
            fingerprint: pem_files.fingerprint(),
            config,
            clients,
            host,
            nodes: Mutex::new(ExpiringCache::new(NODE_KEPT)),
        })
    }

    fn check(&self, tls: &Tls, pem_files: &PemFiles) -> Result<NodeVerifier, String> {
        let name = tls.server_name.clone().map(|name| {
            ServerName::try_from(name).map_err(|_| "server_name is nothing that a certificate can bear".to_owned())
        });
        let schemes = self.provider.signature_verification_algorithms.supported_schemes();
        if tls.insecure {
            return Ok(NodeVerifier { verifier: None, name: None, schemes });
        }
        let roots = match (&tls.ca, &pem_files.ca) {
            (Some(path), Some(octets)) => Arc::new(authorities(path, octets)?),
            _ => self.system()?,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, self.provider.clone()).build();
        let verifier = verifier.map_err(|error| format!("the authorities cannot be used: {error}"))?;
        Ok(NodeVerifier { verifier: Some(verifier), name: name.transpose()?, schemes })
    }

    fn system(&self) -> Result<Arc<RootCertStore>, String> {
        let mut system = lock(&self.system);
        if let Some(roots) = &*system {
            return Ok(roots.clone());
        }
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        if roots.add_parsable_certificates(found.certs).0 == 0 {
            let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
            return Err(format!("this system has no certificate authorities{why}; name a file with ca"));
        }
        Ok(system.insert(Arc::new(roots)).clone())
    }
}

/// The authorities of a PEM file. Bundles have odd ones among them, so one that can be used is enough.
fn authorities(path: &Path, octets: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(pem::certificates(path, octets)?) {
        (0, _) => Err(format!("{} has no certificate that can be used", path.display())),
        _ => Ok(roots),
    }
}

/// A name as an URL takes it; `None` for an address, and for what an URL would take for something else. Such a name
/// is checked all the same, but nodes are not told of it.
fn in_url(name: &str) -> Option<String> {
    let url = Url::parse(&format!("https://{name}/")).ok()?;
    url.domain().filter(|domain| domain.eq_ignore_ascii_case(name)).map(str::to_owned)
}

/// Checks a node's certificate.
#[derive(Debug)]
struct NodeVerifier {
    /// `None`: everything is accepted.
    verifier: Option<Arc<WebPkiServerVerifier>>,
    /// What the certificate must bear in place of what was asked for.
    name: Option<ServerName<'static>>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(verifier) = &self.verifier else { return Ok(ServerCertVerified::assertion()) };
        verifier.verify_server_cert(certificate, intermediates, self.name.as_ref().unwrap_or(asked), ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let Some(verifier) = &self.verifier else { return Ok(HandshakeSignatureValid::assertion()) };
        verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let Some(verifier) = &self.verifier else { return Ok(HandshakeSignatureValid::assertion()) };
        verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// What the files of one value of `tls` come to.
#[derive(Debug)]
struct TlsSetup {
    /// Of the files that it was made of.
    fingerprint: Vec<String>,
    config: ClientConfig,
    /// For nodes that are asked by their address.
    clients: Clients,
    /// The name by which nodes are asked, so that they hear it too (SNI); it leads to another node each time, and so
    /// each has a client of its own.
    host: Option<String>,
    nodes: Mutex<ExpiringCache<(IpAddr, u16, Keep), Client>>,
}

impl TlsSetup {
    fn ready(&self, node: SocketAddr, keep: Keep) -> Result<Ready, String> {
        let Some(host) = &self.host else {
            return Ok(Ready { client: self.clients.of(keep).clone(), authority: node.to_string() });
        };
        let make = || client(&self.config, keep).resolve(host, node).build().map_err(|error| error.to_string());
        let client = match keep {
            // It keeps no connection, so it need not be kept.
            Keep::Never => make()?,
            Keep::Shortly | Keep::Long => {
                lock(&self.nodes).get_or_make((node.ip(), node.port(), keep), Instant::now(), make)?
            }
        };
        Ok(Ready { client, authority: format!("{host}:{}", node.port()) })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroU16, path::PathBuf};

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::{
        config::Scheme,
        discovery::node::{Endpoint, FetchError, Keep, NodeClient},
        simulation::{Cluster, Delivery, Identity, Path as Asked},
    };

    /// Patience with nodes that answer: long, because the machine may be busy.
    const LONG: Duration = Duration::from_secs(10);

    /// Files that go with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("alternator-dns-tls-{}-{name}", std::process::id()));
            fs::create_dir_all(&directory).unwrap();
            Self(directory)
        }

        fn put(&self, name: &str, content: &str) -> PathBuf {
            fs::write(self.0.join(name), content).unwrap();
            self.0.join(name)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A certificate that vouches for itself, and its key.
    fn certificate(names: &[String]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    /// A cluster that speaks TLS under these names, and its certificate in a file.
    fn cluster(scratch: &Scratch, nodes: usize, names: &[String]) -> (Cluster, PathBuf) {
        let cluster = Cluster::start(nodes).unwrap();
        let addresses = cluster.nodes().iter().map(IpAddr::to_string).collect::<Vec<_>>();
        let (certificate, key) = certificate(if names.is_empty() { &addresses } else { names });
        cluster.encrypt(Some(Identity::new(&certificate, &key, None).unwrap()));
        (cluster, scratch.put("ca.pem", &certificate))
    }

    fn endpoint(cluster: &Cluster, node: usize, tls: &Tls) -> Endpoint {
        let port = NonZeroU16::new(cluster.port()).unwrap();
        Endpoint { scheme: Scheme::Https(tls.clone()), address: cluster.node(node), port }
    }

    #[tokio::test]
    async fn polls_keep_their_connection_and_probes_do_not() {
        let scratch = Scratch::new("connections");
        let (cluster, ca) = cluster(&scratch, 2, &[]);
        let alternator = NodeClient::new().unwrap();
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
        let scratch = Scratch::new("names");
        let (cluster, ca) = cluster(&scratch, 3, &["Node.internal".into(), "192.0.2.7".into(), "a_b.internal".into()]);
        let alternator = NodeClient::new().unwrap();
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
        let (polls, probes) = (3, 3 * 2);
        assert_eq!(cluster.connections(cluster.node(2)), polls + probes);
    }

    #[tokio::test]
    async fn a_certificate_that_does_not_fit_is_no_refusal() {
        let scratch = Scratch::new("unfit");
        let (cluster, ca) = cluster(&scratch, 1, &["node.internal".into()]);
        let alternator = NodeClient::new().unwrap();
        let tls = Tls { ca: Some(ca), server_name: Some("other.internal".into()), ..Tls::default() };
        let error = alternator.health(&endpoint(&cluster, 0, &tls), LONG).await.unwrap_err();
        let sentence = "has a certificate that is not for other.internal, but for node.internal";
        assert_eq!((error.to_string(), error.is_refusal()), (sentence.into(), false));
    }

    #[test]
    fn every_bad_file_is_named_with_what_is_wrong() {
        let scratch = Scratch::new("bad");
        let (certificate, key) = certificate(&["a".into()]);
        let (_, other_key) = super::tests::certificate(&["b".into()]);
        let (good, good_key) = (scratch.put("good.pem", &certificate), scratch.put("good.key", &key));
        let complaint = |ca: &PathBuf, client: Option<(&PathBuf, &PathBuf)>| {
            let client = client.map(|(cert, key)| (cert.clone(), key.clone()));
            let tls = Tls { ca: Some(ca.clone()), client, ..Tls::default() };
            let TlsClients(shared) = TlsClients::new();
            let made = PemFiles::read(&tls).and_then(|pem_files| shared.builder.setup(&tls, &pem_files));
            made.map(drop).map_err(|sentence| sentence.replace(&scratch.0.display().to_string(), ""))
        };
        assert_eq!(complaint(&good, Some((&good, &good_key))), Ok(()));
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
            assert_eq!(complaint(&scratch.put("ca.pem", content), None).unwrap_err(), sentence);
        }
        assert_eq!(complaint(&scratch.0, None).unwrap_err(), " is not a file");
        let missing = scratch.0.join("missing");
        assert_eq!(complaint(&missing, None).unwrap_err(), "cannot read /missing: there is no such file");
        let other = scratch.put("other.key", &other_key);
        let mismatch = complaint(&good, Some((&good, &other))).unwrap_err();
        assert_eq!(mismatch, "/other.key is not the key of /good.pem");
        let none = complaint(&good, Some((&good, &good))).unwrap_err();
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

    #[test]
    fn files_that_say_the_same_keep_their_connections() {
        let scratch = Scratch::new("same");
        let (certificate, _) = certificate(&["a".into()]);
        let (other, _) = super::tests::certificate(&["b".into()]);
        let tls = Tls { ca: Some(scratch.put("ca.pem", &certificate)), ..Tls::default() };
        let TlsClients(shared) = TlsClients::new();
        let files = Files { tls, turn: Arc::default(), state: Mutex::default() };
        let look = || {
            files.look(&shared.builder);
            files.setup().unwrap()
        };
        let first = look();
        assert!(lock(&files.state).stamps.is_none(), "a file that is so young may change again unseen");
        scratch.put("ca.pem", &certificate);
        assert!(Arc::ptr_eq(&first, &look()));
        scratch.put("ca.pem", "bad");
        assert!(Arc::ptr_eq(&first, &look()));
        assert!(lock(&files.state).complaint.is_some());
        scratch.put("ca.pem", &certificate);
        assert!(Arc::ptr_eq(&first, &look()));
        assert!(lock(&files.state).complaint.is_none());
        scratch.put("ca.pem", &other);
        assert!(!Arc::ptr_eq(&first, &look()));
    }
}
