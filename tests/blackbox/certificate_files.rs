//! Certificates, keys and secrets: what `check` says about their files, what the log and the metrics say before they
//! expire, and credentials of systemd.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use alternator_dns::simulation::{NodeCertificate, SimulatedCluster};
use rcgen::{CertificateParams, KeyPair};

use crate::{
    ca::{Authority, Certified},
    daemon::{Daemon, command, config, scratch, zone_with},
    tls_client, wait,
};

const DAY: Duration = Duration::from_secs(86_400);

/// Enough for a test: times of certificates are whole seconds, and days are counted down.
const HOUR: Duration = Duration::from_secs(3600);

/// A certificate or key that openssl made.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name)
}

/// A certificate for `dns.test` that expires so much later, and its key.
fn expiring(left: Duration) -> Certified {
    let mut params = CertificateParams::new([tls_client::NAME.to_owned()]).unwrap();
    params.not_after = (SystemTime::now() + left).into();
    let key = KeyPair::generate().unwrap();
    Certified { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// A configuration that serves DNS over TLS with these files.
fn encrypted(cert: &Path, key: &Path) -> String {
    let tls = format!("tls = {{ cert = {:?}, key = {:?} }}", cert.display().to_string(), key.display().to_string());
    let zone = "[zones.\"a.example\"]\nseeds = [\"127.0.0.1\"]\n";
    config(zone).replacen("[server]", &format!("[server]\nlisten_tls = [\"127.0.0.1:0\"]\n{tls}"), 1)
}

/// What `check` prints for a file; it must be accepted.
fn check(directory: &Path, content: &str, environment: &[(&str, &Path)]) -> String {
    let file = directory.join("config.toml");
    fs::write(&file, content).unwrap();
    let output = command(&["check", "--config"]).arg(&file).envs(environment.iter().copied()).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    stdout
}

/// A directory of units that has none.
const NO_UNIT: [(&str, &str); 1] = [("SYSTEMD_UNIT_PATH", "/nonexistent")];

fn check_alone(directory: &Path, content: &str) -> String {
    check(directory, content, &NO_UNIT.map(|(name, path)| (name, Path::new(path))))
}

#[test]
fn check_says_what_is_wrong_with_the_certificate_of_the_server() {
    let directory = scratch("check-server");
    for (name, expected) in [
        ("v1", "is of X.509 version 1"),
        ("rsa-1024", "has an RSA key of 1024 bits"),
        ("p-521", "has an ECDSA key on the curve P-521"),
        ("common-name", "has its name \"node.test\" only as common name (CN)"),
        ("address-as-name", "has the address 127.0.0.1 as a DNS name"),
    ] {
        let cert = fixture(&format!("{name}.pem"));
        let said = check_alone(&directory, &encrypted(&cert, &fixture(&format!("{name}.key"))));
        let expected = format!("warning: tls of [server]: {} holds a certificate that {expected}", cert.display());
        assert!(said.contains(&expected), "{name}: {said}");
    }
    let good = fixture("self-signed.pem");
    let wrong_key = check_alone(&directory, &encrypted(&good, &fixture("v1.key")));
    assert!(wrong_key.contains("v1.key is not the key of "), "{wrong_key}");
    let missing = check_alone(&directory, &encrypted(&good, &directory.join("none.key")));
    assert!(missing.contains("none.key: there is no such file; the server will not start"), "{missing}");
    let fine = check_alone(&directory, &encrypted(&good, &fixture("self-signed.key")));
    assert!(!fine.contains("warning: tls"), "{fine}");
    for (left, expected) in [(10 * DAY + HOUR, Some("expires in 10 days, on 2")), (20 * DAY, None)] {
        let Certified { certificate, key } = expiring(left);
        let (cert, key_file) = (directory.join("soon.pem"), directory.join("soon.key"));
        fs::write(&cert, certificate).unwrap();
        fs::write(&key_file, key).unwrap();
        let said = check_alone(&directory, &encrypted(&cert, &key_file));
        assert_eq!(expected.is_some_and(|expected| said.contains(expected)), expected.is_some(), "{said}");
        assert_eq!(said.contains("expires"), expected.is_some(), "{said}");
    }
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn check_reads_the_files_of_zones_and_secrets() {
    let directory = scratch("check-zones");
    let tls = format!("scheme = \"https\"\ntls = {{ ca = {:?} }}\n", fixture("rsa-1024.pem").display().to_string());
    let content = config(&format!("[zones.\"a.example\"]\nseeds = [\"127.0.0.1\"]\n{tls}"));
    let content = content.replacen("[server]", "[server]\ncookie_secret_file = \"/nonexistent/secrets\"", 1);
    let said = check_alone(&directory, &content);
    assert!(said.contains("warning: tls of zone a.example.: "), "{said}");
    assert!(said.contains("has an RSA key of 1024 bits") && said.contains("no node can be asked"), "{said}");
    let secrets = "warning: cookie_secret_file: cannot read /nonexistent/secrets: there is no such file";
    assert!(said.contains(secrets), "{said}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn check_says_what_the_user_of_the_service_cannot_read() {
    let directory = scratch("check-access");
    let units = directory.join("units");
    fs::create_dir_all(units.join("alternator-dns.service.d")).unwrap();
    let unit =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd/alternator-dns.service"));
    // The files of this test are in a temporary directory.
    fs::write(units.join("alternator-dns.service"), unit.unwrap().replace("PrivateTmp=yes", "")).unwrap();
    let key = directory.join("server.key");
    fs::copy(fixture("self-signed.key"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let environment = [("SYSTEMD_UNIT_PATH", &*units)];
    let content = encrypted(&fixture("self-signed.pem"), &key);
    let said = check(&directory, &content, &environment);
    let sentence =
        format!("warning: tls of [server]: the user of the service cannot read {}: only its owner may", key.display());
    assert!(said.contains(&sentence) && said.contains("LoadCredential="), "{said}");

    fs::write(units.join("alternator-dns.service.d/root.conf"), "[Service]\nDynamicUser=no\n").unwrap();
    let said = check(&directory, &content, &environment);
    assert!(!said.contains("cannot read"), "root can: {said}");

    fs::write(units.join("alternator-dns.service.d/root.conf"), "").unwrap();
    let content = encrypted(&fixture("self-signed.pem"), Path::new("credential:server.key"));
    let elsewhere = check_alone(&directory, &content);
    assert!(!elsewhere.contains("cannot read"), "without the unit only the service knows: {elsewhere}");
    let said = check(&directory, &content, &environment);
    assert!(
        said.contains("cannot read credential:server.key") && said.contains("LoadCredential=server.key:"),
        "{said}"
    );
    assert!(said.contains("only when the service starts"), "{said}");
    let load = format!("[Service]\nLoadCredential=server.key:{}\n", key.display());
    fs::write(units.join("alternator-dns.service.d/key.conf"), load).unwrap();
    let said = check(&directory, &content, &environment);
    assert!(!said.contains("cannot read"), "{said}");
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_certificate_that_expires_soon_is_logged_and_shown_in_the_metrics() {
    let directory = scratch("expiry");
    let (cert, key) = (directory.join("server.pem"), directory.join("server.key"));
    let put = |Certified { certificate, key: secret }: Certified| {
        fs::write(&cert, certificate).unwrap();
        fs::write(&key, secret).unwrap();
    };
    put(expiring(10 * DAY + HOUR));
    let file = directory.join("config.toml");
    fs::write(&file, encrypted(&cert, &key)).unwrap();
    let daemon = Daemon::launch_at(directory, &file);
    let series = "alternator_dns_certificate_expiry_timestamp_seconds{use=\"server\"}";
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    wait::until("the metric", || {
        let left = daemon.metric(series) - now;
        (10.0 * 86_400.0..=11.0 * 86_400.0).contains(&left).then_some(())
    });
    let line = format!("tls of [server]: {} holds a certificate that expires in 10 days", cert.display());
    wait::until("the line", || {
        daemon.log().lines().any(|found| found.contains(" WARN ") && found.contains(&line)).then_some(())
    });
    put(expiring(90 * DAY));
    assert_eq!(daemon.reload().0, 0);
    let renewed = fs::read_to_string(&file).unwrap() + "# renewed\n";
    fs::write(&file, renewed).unwrap();
    wait::until("the metric of the renewed certificate", || {
        (daemon.metric(series) - now > 80.0 * 86_400.0).then_some(())
    });
    assert_eq!(daemon.metric("alternator_dns_certificate_expiry_timestamp_seconds{use=\"ca\"}"), 0.0);
}

#[test]
fn a_certificate_of_nodes_that_expires_soon_is_logged_and_shown_in_the_metrics() {
    let cluster = SimulatedCluster::start(2).unwrap();
    let Certified { certificate, key } = expiring(10 * DAY + HOUR);
    cluster.encrypt(Some(NodeCertificate::new(&certificate, &key, None).unwrap()));
    let keys = "refresh = \"200ms\"\ntimeout = \"1s\"\nscheme = \"https\"\ntls = { insecure = true }\n";
    let zones = zone_with("a.example", &cluster.nodes(), cluster.port(), keys);
    let daemon = Daemon::start("node-expiry", &zones);
    wait::until("both nodes", || (daemon.nodes("a.example").len() == 2).then_some(()));
    // The certificates are looked at once a minute, and after each reload.
    fs::write(daemon.config_path(), fs::read_to_string(daemon.config_path()).unwrap() + "# again\n").unwrap();
    assert_eq!(daemon.reload().0, 0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    wait::until("the metric", || {
        let left = daemon.metric("alternator_dns_certificate_expiry_timestamp_seconds{use=\"node\"}") - now;
        (10.0 * 86_400.0..=11.0 * 86_400.0).contains(&left).then_some(())
    });
    let line = format!("the node {} and 1 more show a certificate that expires in 10 days", cluster.node(0));
    wait::until("the line", || daemon.log().contains(&line).then_some(()));
}

#[test]
fn a_self_signed_certificate_of_a_node_is_accepted_as_ca() {
    let pem = fs::read_to_string(fixture("self-signed.pem")).unwrap();
    let key = fs::read_to_string(fixture("self-signed.key")).unwrap();
    let cluster = SimulatedCluster::start(1).unwrap();
    cluster.encrypt(Some(NodeCertificate::new(&pem, &key, None).unwrap()));
    let zone = |name: &str, ca: &Path| {
        let ca = ca.display().to_string();
        let keys =
            format!("refresh = \"100ms\"\nscheme = \"https\"\ntls = {{ ca = {ca:?}, server_name = \"node.test\" }}\n");
        zone_with(name, &[cluster.node(0)], cluster.port(), &keys)
    };
    let directory = scratch("exact");
    let other = directory.join("other.pem");
    fs::write(&other, Authority::new("other").pem()).unwrap();
    let file = directory.join("config.toml");
    let zones = zone("own.example", &fixture("self-signed.pem")) + &zone("other.example", &other);
    fs::write(&file, config(&zones)).unwrap();
    let daemon = Daemon::launch_at(directory, &file);
    wait::until("the zone to be live", || (daemon.zone("own.example.")["state"] == "live").then_some(()));
    wait::until("the other authority to be refused", || {
        let error = daemon.zone("other.example.")["last_error"].as_str().unwrap_or_default().to_owned();
        error.contains("has a certificate that is that of an authority (CA:TRUE)").then_some(())
    });
}

#[test]
fn files_may_be_credentials_of_systemd() {
    let directory = scratch("credentials");
    let credentials = directory.join("credentials");
    fs::create_dir(&credentials).unwrap();
    let authority = Authority::new("ours");
    let Certified { certificate, key } = authority.certify([tls_client::NAME]);
    fs::write(credentials.join("server.pem"), certificate).unwrap();
    fs::write(credentials.join("server.key"), key).unwrap();
    let file = directory.join("config.toml");
    fs::write(&file, encrypted(Path::new("credential:server.pem"), Path::new("credential:server.key"))).unwrap();
    let refused = command(&["run", "--config"]).arg(&file).env("RUNTIME_DIRECTORY", &directory).output().unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("cannot read credential:server.pem: systemd has given this process no credential"), "{last}");
    let directories = [("RUST_LOG", "info"), ("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())];
    let mut daemon = Daemon::launch_with(directory, &file, &directories);
    let server = daemon.secure_address("tls");
    wait::until("a TLS connection", || tls_client::connect(server, &authority).map(drop));
    assert!(daemon.log().contains("systemd copies credentials"), "{}", daemon.log());
}
