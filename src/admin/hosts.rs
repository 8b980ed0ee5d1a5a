//! The names under which the pages answer.
//!
//! A browser that has opened a stranger's page can be led to this server: the stranger's name resolves to his own
//! address first, and to this server's a moment later (DNS rebinding). Then the browser takes the pages for the
//! stranger's own, and lets his script read them. But it still sends the stranger's name as `Host`. So the pages answer
//! only under an address, and under names that lead to this server by its operator's will.

use std::{fmt, net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::types::ZoneName;

/// Characters of a client's `Host` that a reply repeats.
const HOST_SHOWN_MAX: usize = 100;

/// The names under which the pages answer, besides addresses and `localhost`. Clones share them.
#[derive(Clone, Debug)]
pub struct AllowedHosts {
    /// The host's own names.
    own: Arc<[ZoneName]>,
    /// `admin_hosts` of the configuration in force.
    configured: Arc<ArcSwap<Vec<ZoneName>>>,
}

impl Default for AllowedHosts {
    /// Only the host's own names.
    fn default() -> Self {
        let host_name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        Self { own: own_names(host_name.as_deref().unwrap_or_default()).into(), configured: Arc::default() }
    }
}

impl AllowedHosts {
    /// Replaces the configured names.
    pub fn replace(&self, names: Vec<ZoneName>) {
        self.configured.store(Arc::new(names));
    }

    /// Whether the pages answer under this host, with or without a port.
    pub fn allows(&self, host: &str) -> bool {
        match Host::parse(host) {
            None => false,
            Some(Host::Address) => true,
            Some(Host::Name(name)) => {
                name.to_string() == "localhost." || self.own.contains(&name) || self.configured.load().contains(&name)
            }
        }
    }
}

/// The host's name, and its first label: users of the same domain leave out the rest.
fn own_names(host_name: &str) -> Vec<ZoneName> {
    let first = host_name.split('.').next().unwrap_or_default();
    let names = [host_name, first].into_iter().filter_map(|name| ZoneName::parse(name).ok());
    let mut names: Vec<_> = names.filter(|name| !name.is_root()).collect();
    names.dedup();
    names
}

/// What a client asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Host {
    Address,
    Name(ZoneName),
}

impl Host {
    /// Reads `host` or `host:port`, as in a header or an URL. `None` where it is neither an address nor a name.
    fn parse(text: &str) -> Option<Self> {
        if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
            return (is_address && (port.is_empty() || is_port(port.strip_prefix(':')?))).then_some(Self::Address);
        }
        let host = match text.split_once(':') {
            Some((host, port)) => is_port(port).then_some(host)?,
            None => text,
        };
        if host.parse::<IpAddr>().is_ok() {
            return Some(Self::Address);
        }
        ZoneName::parse(host).ok().filter(|name| !name.is_root()).map(Self::Name)
    }
}

/// A port may be left out after the colon (RFC 3986, 3.2.3).
fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|octet| octet.is_ascii_digit())
}

/// Refuses requests under other names.
pub(super) async fn refuse_other_hosts(State(hosts): State<AllowedHosts>, request: Request, next: Next) -> Response {
    match asked_host(&request) {
        Some(text) if hosts.allows(&text) => next.run(request).await,
        text => (StatusCode::MISDIRECTED_REQUEST, Refusal(text).to_string()).into_response(),
    }
}

/// The host of the request; `None` where there is none, or more than one. A target with a host comes before the header
/// (RFC 9112, 3.2.2).
fn asked_host(request: &Request) -> Option<String> {
    if let Some(authority) = request.uri().authority() {
        return Some(authority.as_str().to_owned());
    }
    let mut headers = request.headers().get_all(header::HOST).iter();
    let first = headers.next()?.to_str().ok()?.to_owned();
    headers.next().is_none().then_some(first)
}

struct Refusal(Option<String>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(host) => {
                let shown: String = host.chars().take(HOST_SHOWN_MAX).collect();
                writeln!(
                    f,
                    "this page does not answer under the name {shown:?}; use an address, or add the name to admin_hosts \
                     in [server]"
                )
            }
            None => writeln!(f, "this page needs one Host header, with an address or a name of this server"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn allowed(host: &str) -> bool {
        let hosts = AllowedHosts { own: own_names("dns-1.corp.example").into(), configured: Arc::default() };
        hosts.replace(vec![ZoneName::parse("dns-admin.corp.example").unwrap()]);
        hosts.allows(host)
    }

    #[test]
    fn addresses_and_names_of_this_server_are_allowed() {
        for host in [
            "127.0.0.1",
            "192.0.2.1:9153",
            "[::1]",
            "[2001:db8::1]:9153",
            "localhost",
            "LocalHost:9153",
            "localhost.",
            "dns-1.corp.example:9153",
            "dns-1",
            "DNS-Admin.corp.example.",
            "dns-admin.corp.example:",
        ] {
            assert!(allowed(host), "{host}");
        }
        for host in [
            "",
            ".",
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "corp.example",
            "dns-2",
            "[evil.example]",
            "[127.0.0.1]",
            "[::1]evil.example",
            "evil.example:127.0.0.1",
            "user@127.0.0.1",
            "127.0.0.1, evil.example",
            "::1",
            "127.1",
            "0x7f000001",
        ] {
            assert!(!allowed(host), "{host}");
        }
    }

    #[test]
    fn a_host_without_a_good_name_has_none() {
        assert_eq!(own_names(""), []);
        assert_eq!(own_names("my host"), []);
        assert_eq!(own_names("host").len(), 1);
    }

    proptest! {
        #[test]
        fn no_text_panics_the_parser(text in "(\\[?[0-9a-f:.%]{0,12}\\]?|[a-z.]{0,9}|\\PC{0,20}):?[0-9]{0,6}") {
            if let Some(Host::Name(name)) = Host::parse(&text) {
                prop_assert!(text.to_lowercase().starts_with(name.to_string().trim_end_matches('.')));
            }
        }
    }
}
