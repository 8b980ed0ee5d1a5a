//! The views of a zone: the clients that get other addresses of its name, and which.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{Row, ZoneEntry};

/// A view of a zone. Its entry is like that of a zone, with a poller of its own, but no name leads to it: it only has
/// addresses, and everything else of an answer is the zone's.
#[derive(Debug)]
pub struct View {
    /// Where its clients are.
    pub clients: Arc<[IpNet]>,
    /// The nodes that they get.
    pub row: Row,
}

/// The views of one zone.
#[derive(Debug)]
pub struct ZoneViews {
    views: Box<[View]>,
    /// The networks of all views, which do not overlap, in order.
    ranges: Box<[ClientRange]>,
}

/// A network, and the place of its view.
#[derive(Debug)]
struct ClientRange {
    first: ClientKey,
    last: ClientKey,
    view: usize,
}

/// An address, in a form that is cheap to compare: whether it is of IPv6, and its bits.
type ClientKey = (bool, u128);

/// A mapped IPv4 address counts as what it stands for.
fn key(address: IpAddr) -> ClientKey {
    match address.to_canonical() {
        IpAddr::V4(v4) => (false, v4.to_bits().into()),
        IpAddr::V6(v6) => (true, v6.to_bits()),
    }
}

impl View {
    /// A view for the clients in these networks.
    pub fn new(clients: Arc<[IpNet]>, entry: Arc<ZoneEntry>) -> Self {
        Self { clients, row: Row { id: entry.id(), entry } }
    }
}

impl ZoneViews {
    /// Takes views whose networks do not overlap.
    pub fn new(views: impl IntoIterator<Item = View>) -> Self {
        let views: Box<[View]> = views.into_iter().collect();
        let networks =
            views.iter().enumerate().flat_map(|(place, view)| view.clients.iter().map(move |network| (place, network)));
        let range = |(view, network): (usize, &IpNet)| {
            let [first, last] = [network.network(), network.broadcast()].map(key);
            ClientRange { first, last, view }
        };
        let ranges = networks.map(range);
        let mut ranges: Box<[ClientRange]> = ranges.collect();
        ranges.sort_unstable_by_key(|range| range.first);
        Self { views, ranges }
    }

    /// The view of a client.
    pub fn of(&self, client: IpAddr) -> Option<&View> {
        let client = key(client);
        let after = self.ranges.partition_point(|range| range.first <= client);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        if client <= range.last { self.views.get(range.view) } else { None }
    }

    /// Each of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &View> {
        self.views.iter()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{table::ZoneSettings, types::ZoneName};

    fn views(clients: &[&[&str]]) -> ZoneViews {
        let view = |networks: &&[&str]| {
            let clients: Arc<[IpNet]> = networks.iter().map(|network| network.parse().unwrap()).collect();
            let key = ZoneName::parse("a").unwrap().of_view(&clients[0]);
            View::new(clients, Arc::new(ZoneEntry::new(key, ZoneSettings::example(), 1)))
        };
        ZoneViews::new(clients.iter().map(view))
    }

    fn found(views: &ZoneViews, client: &str) -> Option<String> {
        Some(views.of(client.parse().unwrap())?.row.entry.name().to_string())
    }

    #[test]
    fn a_client_gets_the_view_whose_network_it_is_in() {
        let views = views(&[&["10.0.2.0/24", "10.0.4.7/32", "fd00:2::/32"], &["10.0.1.0/24", "fd00:1::/32"]]);
        let second = Some("a./10.0.1.0/24".to_owned());
        let first = Some("a./10.0.2.0/24".to_owned());
        for client in ["10.0.1.0", "10.0.1.255", "::ffff:10.0.1.7", "fd00:1::", "fd00:1:ffff::1"] {
            assert_eq!(found(&views, client), second, "{client}");
        }
        for client in ["10.0.2.1", "10.0.4.7", "fd00:2::1"] {
            assert_eq!(found(&views, client), first, "{client}");
        }
        for client in ["10.0.0.255", "10.0.3.0", "10.0.4.6", "10.0.4.8", "192.0.2.1", "::1", "fd00:3::", "0.0.0.0"] {
            assert_eq!(found(&views, client), None, "{client}");
        }
        assert!(super::ZoneViews::new([]).of(IpAddr::from([10, 0, 0, 1])).is_none());
    }

    proptest! {
        #[test]
        fn the_view_is_the_one_that_contains_the_client(client in any::<u32>(), prefix in 1_u8..9) {
            let count = 1_u32 << prefix.min(4);
            let network = |number: u32| format!("{}/{prefix}", std::net::Ipv4Addr::from_bits(number << (32 - prefix)));
            let networks: Vec<String> = (0..count.min(1 << prefix)).rev().map(network).collect();
            let each: Vec<Vec<&str>> = networks.iter().map(|network| vec![network.as_str()]).collect();
            let lists: Vec<&[&str]> = each.iter().map(Vec::as_slice).collect();
            let views = views(&lists);
            let client = IpAddr::from(client.to_be_bytes());
            let expected = views.iter().find(|view| view.clients[0].contains(&client)).map(|view| view.row.id);
            prop_assert_eq!(views.of(client).map(|view| view.row.id), expected);
        }
    }
}
