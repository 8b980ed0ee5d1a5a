//! When the certificates that the configuration names, and those that nodes show, expire: for the metrics, and for the log
//! before that happens.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::watch, time::timeout};

use crate::{
    config::{Config, NamedFile},
    discovery::node::TLS_FILE_OCTETS_MAX,
    metrics::{CertificateUse, ProcessCounters},
    net::{
        certificate::{CertificateFacts, expires_soon, unix_seconds},
        pem,
        watched::FileReader,
    },
    telemetry::LogInterval,
};

/// Between two looks at the files. A renewed certificate should end the alert soon.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Between two log lines about one certificate.
const REPORT_INTERVAL: Duration = Duration::from_secs(86_400);

/// Expiries of nodes' certificates that are logged, the first ones: what an operator renews in one go.
const NODE_EXPIRIES_MAX: usize = 8;

/// A file of certificates that the configuration names.
#[derive(Clone, Debug, Eq, PartialEq)]
struct CertificateFile {
    path: PathBuf,
    purpose: CertificateUse,
    place: String,
}

/// Says which files are watched. Dropping it ends the watch.
#[derive(Debug)]
pub(super) struct WatchedCertificates(watch::Sender<Vec<CertificateFile>>);

impl WatchedCertificates {
    /// Watches no file yet. The second value is the task that does it.
    pub(super) fn new() -> (Self, ExpiryTask) {
        let (files, current) = watch::channel(Vec::new());
        (Self(files), ExpiryTask(current))
    }

    /// Watches the files of this configuration from now on.
    pub(super) fn replace(&self, config: &Config) {
        let files = config.named_files().into_iter().filter_map(|NamedFile { path, certificates, place }| {
            Some(CertificateFile { path: path.into(), purpose: certificates?, place })
        });
        self.0.send_replace(files.collect());
    }
}

/// The task that looks at the files, not yet running.
pub(super) struct ExpiryTask(watch::Receiver<Vec<CertificateFile>>);

impl ExpiryTask {
    /// Runs until the [`WatchedCertificates`] are gone.
    pub(super) async fn run(mut self, reader: FileReader, counters: Arc<ProcessCounters>) {
        let mut log = ExpiryLog::default();
        let mut node_log = ExpiryLog::default();
        loop {
            let files = self.0.borrow_and_update().clone();
            look(&files, &reader, &counters, &mut log).await;
            let now = Instant::now();
            let nodes = look_at_nodes(
                counters.node_requests.certificates(now),
                (unix_seconds(SystemTime::now()), now),
                &mut node_log,
            );
            set_gauge(&counters, CertificateUse::Node, nodes);
            if let Ok(Err(_)) = timeout(LOOK_INTERVAL, self.0.changed()).await {
                return;
            }
        }
    }
}

async fn look(
    files: &[CertificateFile],
    reader: &FileReader,
    counters: &ProcessCounters,
    log: &mut ExpiryLog<PathBuf>,
) {
    let now = unix_seconds(SystemTime::now());
    let mut earliest: HashMap<CertificateUse, i64> = HashMap::new();
    for file in files {
        // What is wrong with a file that cannot be read is said where it is used.
        let Ok(content) = reader.read(&file.path, TLS_FILE_OCTETS_MAX).await else { continue };
        let facts = facts(&content.octets);
        let Some(expires) = expiry(file.purpose, &facts) else { continue };
        earliest.entry(file.purpose).and_modify(|earliest| *earliest = expires.min(*earliest)).or_insert(expires);
        if let Some(words) = expires_soon(expires, now).or_else(|| not_yet_valid(file.purpose, &facts, now))
            && log.is_due(file.path.clone(), expires, Instant::now())
        {
            tracing::warn!("{}: {} holds a certificate that {words}", file.place, file.path.display());
        }
    }
    log.retain(|path| files.iter().any(|file| file.path == *path));
    for &purpose in CertificateUse::ALL.iter().filter(|purpose| **purpose != CertificateUse::Node) {
        set_gauge(counters, purpose, earliest.get(&purpose).copied());
    }
}

fn set_gauge(counters: &ProcessCounters, purpose: CertificateUse, earliest: Option<i64>) {
    // 0 stands for none, so that one that expired before 1970 counts as of the first second.
    let expires = earliest.map_or(0, |expires| u64::try_from(expires).unwrap_or(0).max(1));
    counters.certificate_expiry.of(purpose).set(expires);
}

/// Logs which nodes show a certificate that expires soon: in a line those with one expiry, because they often share it.
/// Returns the first expiry. `now` is one moment, in unix seconds and on the monotonic clock.
fn look_at_nodes(nodes: Vec<(IpAddr, i64)>, now: (i64, Instant), log: &mut ExpiryLog<i64>) -> Option<i64> {
    let mut by_expiry: BTreeMap<i64, Vec<IpAddr>> = BTreeMap::new();
    for (node, expires) in nodes {
        by_expiry.entry(expires).or_default().push(node);
    }
    for (&expires, nodes) in by_expiry.iter().take(NODE_EXPIRIES_MAX) {
        if let Some(words) = expires_soon(expires, now.0)
            && log.is_due(expires, expires, now.1)
            && let Some(first) = nodes.iter().min()
        {
            let more = match nodes.len() - 1 {
                0 => "shows".to_owned(),
                more => format!("and {more} more show"),
            };
            tracing::warn!("the node {first} {more} a certificate that {words}");
        }
    }
    log.retain(|expires| by_expiry.contains_key(expires));
    by_expiry.first_key_value().map(|(expires, _)| *expires)
}

/// What the certificates of a PEM file say.
fn facts(octets: &[u8]) -> Vec<CertificateFacts> {
    let certificates = pem::certificates(Path::new(""), octets).unwrap_or_default();
    certificates.iter().filter_map(|certificate| CertificateFacts::parse(certificate)).collect()
}

/// When a file expires: a chain with its first certificate, and authorities with their last, because one is enough.
fn expiry(purpose: CertificateUse, facts: &[CertificateFacts]) -> Option<i64> {
    let expiries = facts.iter().map(CertificateFacts::expires);
    match purpose {
        CertificateUse::Server | CertificateUse::Client | CertificateUse::Node => expiries.min(),
        CertificateUse::Ca => expiries.max(),
    }
}

/// Whether the certificate that is shown is not valid yet. Of several authorities, one is enough.
fn not_yet_valid(purpose: CertificateUse, facts: &[CertificateFacts], now: i64) -> Option<String> {
    let own = facts.first().filter(|_| purpose != CertificateUse::Ca)?;
    own.time_defect(now).map(|defect| defect.to_string())
}

/// What is worth a warning about the certificates of a file that can be used; each is the end of a sentence.
pub(super) fn certificate_warnings(purpose: CertificateUse, octets: &[u8], now: i64) -> Vec<String> {
    let facts = facts(octets);
    let soon = expiry(purpose, &facts).and_then(|expires| expires_soon(expires, now));
    let early = not_yet_valid(purpose, &facts, now).filter(|_| soon.is_none());
    let name = match purpose {
        CertificateUse::Server => facts.first().and_then(CertificateFacts::name_defect),
        CertificateUse::Client | CertificateUse::Node => None,
        // An authority needs no name of a server; one that nodes show themselves does.
        CertificateUse::Ca => facts.iter().filter(|facts| !facts.may_sign()).find_map(CertificateFacts::name_defect),
    };
    let is_old = purpose == CertificateUse::Ca && facts.iter().any(CertificateFacts::is_old);
    let old = is_old.then(|| {
        "is of X.509 version 1: it may sign the nodes' certificates, but a node that shows it itself is refused"
            .to_owned()
    });
    soon.into_iter().chain(early).chain(name.map(|defect| defect.to_string())).chain(old).collect()
}

/// When each certificate was last logged.
#[derive(Debug)]
struct ExpiryLog<K>(HashMap<K, (i64, LogInterval)>);

impl<K> Default for ExpiryLog<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> ExpiryLog<K> {
    /// Whether a line is due: for another certificate at once, for the same after a day.
    fn is_due(&mut self, what: K, expires: i64, now: Instant) -> bool {
        let first = (expires, LogInterval::new(REPORT_INTERVAL));
        let last = self.0.entry(what).or_insert(first);
        if last.0 != expires {
            *last = first;
        }
        last.1.is_due(now)
    }

    /// Forgets what is there no more, but keeps what was logged about the others.
    fn retain(&mut self, is_there: impl Fn(&K) -> bool) {
        self.0.retain(|what, _| is_there(what));
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const DAY: i64 = 86_400;

    /// The start of February 2026.
    const FEBRUARY: i64 = 1_769_904_000;

    /// A certificate that is valid from January 1st, 2026 to this day of February.
    fn expiring(day: u8) -> String {
        let mut params = CertificateParams::new(["node.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 2, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn made_by_openssl(name: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)).unwrap()
    }

    #[test]
    fn a_chain_expires_with_its_first_certificate_and_authorities_with_their_last() {
        let file = [expiring(20), expiring(10)].concat();
        let days = |purpose| (expiry(purpose, &facts(file.as_bytes())).unwrap() - FEBRUARY) / DAY;
        assert_eq!([CertificateUse::Server, CertificateUse::Client, CertificateUse::Ca].map(days), [9, 9, 19]);
        assert_eq!(expiry(CertificateUse::Ca, &facts(b"")), None);
    }

    #[test]
    fn what_will_go_wrong_is_said_beforehand() {
        let warnings = |purpose, octets: &[u8], day: i64| certificate_warnings(purpose, octets, FEBRUARY + day * DAY);
        let own = expiring(20);
        let soon = ["expires in 14 days, on 2026-02-20".to_owned()];
        for purpose in CertificateUse::ALL {
            assert_eq!(warnings(*purpose, own.as_bytes(), 4), [""; 0]);
            assert_eq!(warnings(*purpose, own.as_bytes(), 5), soon);
            assert_eq!(warnings(*purpose, own.as_bytes(), 20), ["expired on 2026-02-20"]);
        }
        let early = warnings(CertificateUse::Server, own.as_bytes(), -60);
        assert_eq!(early, ["is not valid before 2026-01-01; is the clock right?"]);
        let names = |purpose, name: &str| warnings(purpose, &made_by_openssl(name), 365).join("; ");
        assert!(names(CertificateUse::Server, "common-name.pem").contains("only as common name"));
        assert!(names(CertificateUse::Server, "address-as-name.pem").contains("as a DNS name"));
        assert_eq!(names(CertificateUse::Client, "common-name.pem"), "");
        assert_eq!(names(CertificateUse::Ca, "common-name.pem"), "", "authorities have only that");
        assert!(names(CertificateUse::Ca, "v1.pem").starts_with("is of X.509 version 1: it may sign "));
    }

    #[test]
    fn a_certificate_is_logged_once_a_day_until_it_is_renewed() {
        let mut log = ExpiryLog::default();
        let start = Instant::now();
        let mut due = |expires, minutes: u64| log.is_due("/c", expires, start + Duration::from_secs(60 * minutes));
        let days: Vec<_> = (0..3000).filter(|minutes| due(7, *minutes)).collect();
        assert_eq!(days, [0, 1440, 2880]);
        assert!(due(8, 3000));
        log.retain(|_| false);
        assert!(log.is_due("/c", 8, start + Duration::from_secs(60 * 3001)));
    }

    #[test]
    fn nodes_with_one_expiry_are_one_line_and_the_first_expiry_counts() {
        let node = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut log = ExpiryLog::default();
        let now = (FEBRUARY, Instant::now());
        assert_eq!(look_at_nodes(vec![], now, &mut log), None);
        let nodes = || (1..=40).map(|last| (node(last), FEBRUARY + i64::from(last / 2 + 1) * DAY)).collect::<Vec<_>>();
        assert_eq!(look_at_nodes(nodes(), now, &mut log), Some(FEBRUARY + DAY));
        assert_eq!(log.0.len(), NODE_EXPIRIES_MAX);
        assert_eq!(look_at_nodes(vec![(node(1), FEBRUARY + 90 * DAY)], now, &mut log), Some(FEBRUARY + 90 * DAY));
        assert!(log.0.is_empty(), "they were renewed");
    }
}
