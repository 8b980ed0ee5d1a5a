//! What holds for every question, whichever zone it is about.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;

use super::limiter::Limiter;
use crate::types::AllowedClients;

/// The part of a configuration that answers need and that belongs to no zone.
#[derive(Clone, Debug, Default)]
pub struct ServerSettings {
    /// The clients that may ask for names outside all zones; each zone has its own.
    pub clients: AllowedClients,
    /// The clients whose queries for names outside every zone are forwarded; `None`: no client's.
    pub forward: Option<AllowedClients>,
    /// The server's identity (RFC 5001; `id.server`, RFC 4892); `None`: it is not disclosed.
    pub id: Option<Arc<str>>,
    /// The answer for `version.bind`; `None`: there is none.
    pub version: Option<Arc<str>>,
    /// How long an idle TCP connection may stay, in tenths of a second (RFC 7828, 3.1).
    pub keepalive: u16,
    /// What cookies are made and verified with. They change while the server runs.
    pub cookies: Arc<ArcSwap<CookieSecrets>>,
    /// Bounds replies over UDP; `None`: nothing does.
    pub limiter: Option<Arc<Limiter>>,
}

impl ServerSettings {
    /// Whether a client's questions about names that are no zone's are passed on.
    pub fn forwards_for(&self, client: IpAddr) -> bool {
        self.forward.as_ref().is_some_and(|clients| clients.permit(client))
    }
}

/// A secret of 128 bits, as SipHash takes it (RFC 9018, 4).
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct CookieSecret(pub [u8; 16]);

impl std::fmt::Debug for CookieSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CookieSecret(..)")
    }
}

/// The secrets of server cookies: the one that makes them, and others that are also accepted. To roll a secret over, every
/// replica first accepts the new one (RFC 9018, 5).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CookieSecrets {
    /// Makes cookies.
    pub current: CookieSecret,
    /// Accepted as well.
    pub others: Vec<CookieSecret>,
}

impl CookieSecrets {
    /// One secret alone.
    pub fn of(current: CookieSecret) -> Self {
        Self { current, others: Vec::new() }
    }

    /// All that are accepted.
    pub fn iter(&self) -> impl Iterator<Item = &CookieSecret> {
        std::iter::once(&self.current).chain(&self.others)
    }
}

impl Default for CookieSecrets {
    /// A random secret.
    fn default() -> Self {
        Self::of(CookieSecret(rand::random()))
    }
}
