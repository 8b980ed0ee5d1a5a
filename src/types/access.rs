//! Access: which clients may ask, and how many replies they get.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use ipnet::IpNet;

/// The clients that may ask.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum AllowedClients {
    /// All clients.
    #[default]
    Any,
    /// Addresses inside one of these networks.
    Networks(Arc<[IpNet]>),
}

impl AllowedClients {
    /// Whether a client may ask.
    pub fn permit(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        match self {
            Self::Any => true,
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&client)),
        }
    }
}

/// Limits the replies to one client network over UDP, so that forged source addresses cannot make the server flood a
/// victim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateLimit {
    /// Replies in one second.
    pub per_second: NonZeroU32,
    /// Above the limit, every `slip`th query gets a small reply that makes a real client retry over TCP or with a cookie;
    /// 0: none does.
    pub slip: u8,
    /// Prefix length of an IPv4 client network.
    pub v4_prefix: u8,
    /// Prefix length of an IPv6 client network.
    pub v6_prefix: u8,
}

impl RateLimit {
    /// The network whose clients share a limit with this client.
    pub fn network(&self, client: IpAddr) -> IpNet {
        let client = client.to_canonical();
        let prefix = if client.is_ipv4() { self.v4_prefix } else { self.v6_prefix };
        IpNet::new(client, prefix).unwrap_or_else(|_| client.into()).trunc()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clients_may_ask_unless_networks_are_named() {
        let some =
            AllowedClients::Networks(Arc::new(["10.0.0.0/8".parse().unwrap(), "2001:db8::1/128".parse().unwrap()]));
        let permits = |clients: &AllowedClients, text: &str| clients.permit(text.parse().unwrap());
        assert!(permits(&AllowedClients::Any, "192.0.2.1"));
        assert!(permits(&some, "10.1.2.3") && permits(&some, "2001:db8::1") && permits(&some, "::ffff:10.0.0.1"));
        assert!(!permits(&some, "192.0.2.1") && !permits(&some, "2001:db8::2"));
        assert!(!permits(&AllowedClients::Networks(Arc::new([])), "127.0.0.1"));
    }

    #[test]
    fn addresses_with_one_prefix_share_a_network() {
        let limit = RateLimit { per_second: NonZeroU32::MIN, slip: 2, v4_prefix: 24, v6_prefix: 56 };
        let network = |text: &str| limit.network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(network("2001:db8:0:1ff::7"), "2001:db8:0:100::/56");
    }
}
