//! Address rules: which listed addresses may be answered, and how they are translated.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::Exclusion;

/// A zone's address rules. They apply to addresses as nodes list them; only answers are translated.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AddressRules {
    /// Only addresses inside one of these; `None`: any.
    pub allow: Option<Vec<IpNet>>,
    /// No address inside any of these.
    pub exclude: Vec<IpNet>,
    /// Translations from listed to answered addresses; the longest prefix wins.
    pub map: Vec<Translation>,
    /// Loopback addresses are allowed: a seed of the zone is one, or is a host name.
    pub loopback: bool,
    /// Link-local addresses are allowed: a seed of the zone is one.
    pub link_local: bool,
}

/// One entry of `map`: two networks of one address family and prefix length. Translation keeps the host bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Translation {
    from: IpNet,
    to: IpNet,
}

impl Translation {
    /// `None` when the networks differ in family or size.
    pub fn new(from: IpNet, to: IpNet) -> Option<Self> {
        let same = from.network().is_ipv4() == to.network().is_ipv4() && from.prefix_len() == to.prefix_len();
        same.then(|| Self { from: from.trunc(), to: to.trunc() })
    }

    /// The network as nodes list it.
    pub fn from(&self) -> IpNet {
        self.from
    }

    /// The address in the other network that has the same host bits; `None` for one outside of `from`.
    fn apply(&self, address: IpAddr) -> Option<IpAddr> {
        if !self.from.contains(&address) {
            return None;
        }
        match (address, self.from, self.to) {
            (IpAddr::V4(v4), IpNet::V4(from), IpNet::V4(to)) => {
                let host = v4.to_bits() & from.hostmask().to_bits();
                Some(IpAddr::V4((to.network().to_bits() | host).into()))
            }
            (IpAddr::V6(v6), IpNet::V6(from), IpNet::V6(to)) => {
                let host = v6.to_bits() & from.hostmask().to_bits();
                Some(IpAddr::V6((to.network().to_bits() | host).into()))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

impl AddressRules {
    /// Whether a listed address may be answered.
    pub fn permits(&self, listed: IpAddr) -> bool {
        self.exclusion(listed).is_none()
    }

    /// Why a listed address may not be answered.
    pub fn exclusion(&self, listed: IpAddr) -> Option<Exclusion> {
        let inside = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&listed));
        if inside(&self.exclude) {
            Some(Exclusion::Excluded)
        } else if !self.allow.as_deref().is_none_or(inside) {
            Some(Exclusion::NotAllowed)
        } else if !self.loopback && listed.is_loopback() {
            Some(Exclusion::Loopback)
        } else if !self.link_local && is_link_local(listed) {
            Some(Exclusion::LinkLocal)
        } else {
            None
        }
    }

    /// The address to answer for a listed one.
    pub fn translate(&self, listed: IpAddr) -> IpAddr {
        let matches = self.map.iter().filter_map(|line| Some((line.from.prefix_len(), line.apply(listed)?)));
        matches.max_by_key(|(length, _)| *length).map_or(listed, |(_, translated)| translated)
    }

    /// Whether two addresses are those of one node: as nodes list it, and as it is answered.
    pub fn is_same_node(&self, one: IpAddr, other: IpAddr) -> bool {
        one == other || self.translate(one) == other || self.translate(other) == one
    }
}

/// Whether an address is valid on one link only (RFC 3927, RFC 4291).
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn rules_apply_to_the_listed_address() {
        let rules = AddressRules {
            allow: Some(vec![net("10.0.0.0/8"), net("2001:db8::/32")]),
            exclude: vec![net("10.0.1.9/32")],
            ..AddressRules::default()
        };
        assert!(rules.permits(ip("10.0.1.8")) && rules.permits(ip("2001:db8::1")));
        assert_eq!(rules.exclusion(ip("10.0.1.9")), Some(Exclusion::Excluded));
        assert_eq!(rules.exclusion(ip("192.0.2.1")), Some(Exclusion::NotAllowed));
    }

    #[test]
    fn local_addresses_are_allowed_only_when_a_seed_is_one() {
        let rules = AddressRules::default();
        for local in ["127.0.0.1", "::1", "169.254.1.1", "fe80::1"] {
            assert!(!rules.permits(ip(local)), "{local}");
        }
        let loopback = AddressRules { loopback: true, ..AddressRules::default() };
        assert!(loopback.permits(ip("127.0.0.1")) && !loopback.permits(ip("169.254.1.1")));
    }

    #[test]
    fn a_translation_keeps_the_host_bits_and_the_longest_prefix_wins() {
        let line = |from, to| Translation::new(net(from), net(to)).unwrap();
        let map = vec![line("10.0.1.0/24", "203.0.113.0/24"), line("10.0.1.7/32", "198.51.100.1/32")];
        let rules = AddressRules { map, ..AddressRules::default() };
        assert_eq!(rules.translate(ip("10.0.1.10")), ip("203.0.113.10"));
        assert_eq!(rules.translate(ip("10.0.1.7")), ip("198.51.100.1"));
        assert_eq!(rules.translate(ip("10.0.2.1")), ip("10.0.2.1"));
        assert_eq!(Translation::new(net("10.0.0.0/24"), net("10.0.0.0/25")), None);
        assert_eq!(Translation::new(net("10.0.0.0/24"), net("2001:db8::/24")), None);
    }

    proptest! {
        #[test]
        fn a_translation_and_its_inverse_give_the_same_address(octets in any::<u32>(), to in any::<u32>(), length in 0u8..=32) {
            let address = IpAddr::V4(octets.into());
            let from = IpNet::new(address, length).unwrap();
            let to = IpNet::new(IpAddr::V4(to.into()), length).unwrap();
            let there = Translation::new(from, to).unwrap().apply(address).unwrap();
            prop_assert!(to.contains(&there));
            prop_assert_eq!(Translation::new(to, from).unwrap().apply(there), Some(address));
        }
    }
}
