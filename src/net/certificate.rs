//! What a certificate says, and what keeps TLS from using it, in sentences for people.
//!
//! rustls and webpki decide whether a certificate is good; their errors say little about why. This module looks at the
//! same certificate for the usual reasons.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use humantime_serde::re::humantime::format_rfc3339_seconds;
use rustls::pki_types::ServerName;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_NIST_EC_P521},
    prelude::FromDer,
    public_key::PublicKey,
    x509::{SubjectPublicKeyInfo, X509Version},
};

/// A certificate that expires sooner is worth a warning: most are renewed a month before, and two weeks are left to act.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 86_400);

/// The last second that a date can have here: the year 9999, as in a certificate.
const TIME_MAX: u64 = 253_402_300_799;

/// The shortest RSA key that ring accepts.
const RSA_BITS_MIN: usize = 2048;

/// Characters of a name that a sentence repeats: a node may send anything.
const NAME_SHOWN_MAX: usize = 100;

/// What a certificate says, as far as it matters here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFacts {
    /// Unix times from and to which it is valid.
    validity: (i64, i64),
    is_version_3: bool,
    key: Result<(), UnusableKey>,
    /// The names of clients' checks (subjectAltName).
    dns_names: Vec<String>,
    has_addresses: bool,
    common_name: Option<String>,
    /// It may sign other certificates.
    may_sign: bool,
    /// It says so.
    is_authority: bool,
}

/// Why TLS cannot use a certificate. Each reads as the end of a sentence about a certificate that …
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum CertificateDefect {
    #[error(
        "is of X.509 version 1, which TLS no longer accepts for a server or a client; make it again as version 3, with \
         subjectAltName"
    )]
    Version,
    #[error("has {0}; use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits")]
    Key(UnusableKey),
    #[error("expired on {0}")]
    Expired(Date),
    #[error("is not valid before {0}; is the clock right?")]
    NotYetValid(Date),
    #[error(
        "is that of an authority (CA:TRUE), not that of a server; give this very certificate as ca, or make it again \
         without CA:TRUE"
    )]
    Authority,
    #[error("has its name {0:?} only as common name (CN), which TLS ignores; make it again with subjectAltName={1}")]
    OnlyCommonName(String, String),
    #[error("has the address {0} as a DNS name, which fits no address; make it again with subjectAltName=IP:{0}")]
    AddressAsName(String),
}

/// A key that ring does not support.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[allow(missing_docs)]
pub enum UnusableKey {
    #[error("an RSA key of {0} bits, which is too short")]
    Rsa(usize),
    #[error("an ECDSA key on the curve P-521, which this server does not support")]
    P521,
    #[error("a key of a kind that this server does not support")]
    Other,
}

/// The day of a Unix time, in UTC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Date(i64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = u64::try_from(self.0).unwrap_or_default().min(TIME_MAX);
        let time = format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
        f.write_str(time.split('T').next().unwrap_or_default())
    }
}

impl CertificateFacts {
    /// Reads a certificate in DER; `None` where it is none.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let alternative_names = certificate.subject_alternative_name().ok().flatten();
        let names = alternative_names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        let dns_names = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let common_name = certificate.subject().iter_common_name().next();
        let validity = certificate.validity();
        Some(Self {
            validity: (validity.not_before.timestamp(), validity.not_after.timestamp()),
            is_version_3: certificate.version() == X509Version::V3,
            key: usable_key(certificate.public_key()),
            dns_names: dns_names.collect(),
            has_addresses: names.iter().any(|name| matches!(name, GeneralName::IPAddress(_))),
            common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
            may_sign: may_sign(&certificate),
            is_authority: certificate.is_ca(),
        })
    }

    /// The Unix time until which it is valid.
    pub fn expires(&self) -> i64 {
        self.validity.1
    }

    /// Whether it may sign other certificates. A certificate before version 3 cannot say so.
    pub fn may_sign(&self) -> bool {
        self.may_sign
    }

    /// Whether it is of version 1 or 2, which only old authorities are.
    pub fn is_old(&self) -> bool {
        !self.is_version_3
    }

    /// Why it cannot stand for a server, unless it is trusted itself.
    pub fn authority_defect(&self) -> Option<CertificateDefect> {
        self.is_authority.then_some(CertificateDefect::Authority)
    }

    /// Why it cannot be used to verify signatures, by any peer.
    pub fn key_defect(&self) -> Option<CertificateDefect> {
        self.key.clone().err().map(CertificateDefect::Key)
    }

    /// Why a server or client with this certificate of its own is refused, whatever it is asked for.
    pub fn own_defect(&self) -> Option<CertificateDefect> {
        if self.is_version_3 { self.key_defect() } else { Some(CertificateDefect::Version) }
    }

    /// Why it is not valid at this time.
    pub fn time_defect(&self, now: i64) -> Option<CertificateDefect> {
        let (from, to) = self.validity;
        if now > to {
            Some(CertificateDefect::Expired(Date(to)))
        } else if now < from {
            Some(CertificateDefect::NotYetValid(Date(from)))
        } else {
            None
        }
    }

    /// Why it fits no name, or no address, although it was meant to.
    pub fn name_defect(&self) -> Option<CertificateDefect> {
        let as_name = self.dns_names.iter().find(|name| name.parse::<IpAddr>().is_ok());
        if let Some(address) = as_name
            && !self.has_addresses
        {
            return Some(CertificateDefect::AddressAsName(shown(address)));
        }
        match &self.common_name {
            Some(name) if self.dns_names.is_empty() && !self.has_addresses => {
                let kind = if name.parse::<IpAddr>().is_ok() { "IP" } else { "DNS" };
                Some(CertificateDefect::OnlyCommonName(shown(name), format!("{kind}:{}", shown(name))))
            }
            _ => None,
        }
    }

    /// Why it does not fit what was asked for, if it looks as if it was meant to.
    pub fn name_defect_for(&self, asked: &ServerName<'_>) -> Option<CertificateDefect> {
        self.name_defect().filter(|defect| match defect {
            CertificateDefect::AddressAsName(_) => matches!(asked, ServerName::IpAddress(_)),
            _ => true,
        })
    }
}

/// How long a certificate is still valid, in words, if it is worth a warning.
pub fn expires_soon(expires: i64, now: i64) -> Option<String> {
    let left = expires.saturating_sub(now);
    let limit = i64::try_from(EXPIRY_WARNING.as_secs()).unwrap_or(i64::MAX);
    if left < 0 {
        Some(format!("expired on {}", Date(expires)))
    } else if left <= limit {
        Some(match left / 86_400 {
            0 => format!("expires within a day, on {}", Date(expires)),
            1 => format!("expires in 1 day, on {}", Date(expires)),
            days => format!("expires in {days} days, on {}", Date(expires)),
        })
    } else {
        None
    }
}

/// The Unix time, also before 1970.
pub fn unix_seconds(time: SystemTime) -> i64 {
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => seconds(since),
        Err(before) => -seconds(before.duration()),
    }
}

fn usable_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), UnusableKey> {
    if key.algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 || curve == OID_NIST_EC_P384 => Ok(()),
            Some(curve) if curve == OID_NIST_EC_P521 => Err(UnusableKey::P521),
            _ => Err(UnusableKey::Other),
        };
    }
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => match rsa.key_size() {
            bits if bits < RSA_BITS_MIN => Err(UnusableKey::Rsa(bits)),
            _ => Ok(()),
        },
        Ok(PublicKey::DSA(_)) => Err(UnusableKey::Other),
        // Ed25519 among others; if it is not supported, rustls says so.
        _ => Ok(()),
    }
}

fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    if certificate.version() != X509Version::V3 {
        return true;
    }
    match certificate.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.ca,
        // As OpenSSL does: an authority without basic constraints says it by the usage of its key.
        _ => certificate.key_usage().ok().flatten().is_some_and(|usage| usage.value.key_cert_sign()),
    }
}

fn shown(name: &str) -> String {
    name.chars().take(NAME_SHOWN_MAX).map(|character| if character.is_control() { '?' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
    use rustls::pki_types::{CertificateDer, pem::PemObject};

    const DAY: i64 = 86_400;

    /// The facts about a certificate that openssl made.
    fn made_by_openssl(name: &str) -> CertificateFacts {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates").join(name);
        CertificateFacts::parse(&CertificateDer::from_pem_file(path).unwrap()).unwrap()
    }

    fn made_here(change: impl FnOnce(&mut CertificateParams)) -> CertificateFacts {
        let mut params = CertificateParams::new(["node.test".to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        CertificateFacts::parse(certificate.der()).unwrap()
    }

    #[test]
    fn each_usual_reason_has_a_sentence() {
        let sentence = |name: &str| {
            let facts = made_by_openssl(name);
            facts.own_defect().or(facts.name_defect()).map(|defect| defect.to_string())
        };
        let use_others = "use ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits";
        for (name, expected) in [
            ("self-signed.pem", None),
            (
                "v1.pem",
                Some("is of X.509 version 1, which TLS no longer accepts for a server or a client; make it again as version 3, with subjectAltName".to_owned()),
            ),
            ("rsa-1024.pem", Some(format!("has an RSA key of 1024 bits, which is too short; {use_others}"))),
            (
                "p-521.pem",
                Some(format!("has an ECDSA key on the curve P-521, which this server does not support; {use_others}")),
            ),
            (
                "common-name.pem",
                Some("has its name \"node.test\" only as common name (CN), which TLS ignores; make it again with subjectAltName=DNS:node.test".to_owned()),
            ),
            (
                "address-as-name.pem",
                Some("has the address 127.0.0.1 as a DNS name, which fits no address; make it again with subjectAltName=IP:127.0.0.1".to_owned()),
            ),
        ] {
            assert_eq!(sentence(name), expected, "{name}");
        }
    }

    #[test]
    fn times_are_compared_and_shown_as_days() {
        let facts = made_here(|params| {
            params.not_before = rcgen::date_time_ymd(2026, 1, 1);
            params.not_after = rcgen::date_time_ymd(2026, 2, 1);
        });
        let end = facts.expires();
        let defect = |now| facts.time_defect(now).map(|defect| defect.to_string());
        assert_eq!(defect(end + 1).unwrap(), "expired on 2026-02-01");
        assert_eq!(defect(end - 40 * DAY).unwrap(), "is not valid before 2026-01-01; is the clock right?");
        assert_eq!(defect(end), None);
        for (left, expected) in [
            (15 * DAY, None),
            (14 * DAY, Some("expires in 14 days, on 2026-02-01")),
            (DAY + 5, Some("expires in 1 day, on 2026-02-01")),
            (60, Some("expires within a day, on 2026-02-01")),
            (-1, Some("expired on 2026-02-01")),
        ] {
            assert_eq!(expires_soon(end, end - left).as_deref(), expected);
        }
        assert_eq!(Date(-1).to_string(), "1970-01-01");
        assert_eq!(Date(i64::MAX).to_string(), "9999-12-31");
        assert_eq!(unix_seconds(UNIX_EPOCH - Duration::from_secs(7)), -7);
    }

    #[test]
    fn only_authorities_may_sign() {
        assert!(!made_here(|_| {}).may_sign());
        assert!(made_here(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).may_sign());
        assert!(!made_here(|params| params.is_ca = IsCa::ExplicitNoCa).may_sign());
        assert!(made_by_openssl("v1.pem").may_sign(), "an old authority");
    }

    #[test]
    fn a_name_that_was_not_asked_for_is_no_defect() {
        let facts = made_by_openssl("address-as-name.pem");
        assert!(facts.name_defect_for(&ServerName::try_from("127.0.0.1").unwrap()).is_some());
        assert_eq!(facts.name_defect_for(&ServerName::try_from("node.test").unwrap()), None);
    }

    proptest! {
        #[test]
        fn no_octets_panic_the_parser(octets in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = CertificateFacts::parse(&octets);
        }

        #[test]
        fn no_changed_certificate_panics_the_parser(at in any::<prop::sample::Index>(), octet in any::<u8>()) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates/self-signed.pem");
            let mut der = CertificateDer::from_pem_file(path).unwrap().to_vec();
            *at.get_mut(&mut der) = octet;
            if let Some(facts) = CertificateFacts::parse(&der) {
                let defects = [facts.own_defect(), facts.name_defect(), facts.time_defect(0)];
                for defect in defects.into_iter().flatten() {
                    prop_assert!(defect.to_string().len() < 1000);
                }
            }
        }
    }
}
