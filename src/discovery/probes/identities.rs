//! Which nodes are to be asked for the id of their cluster, by which zones, and the replies that zones have not fetched.
//!
//! A query goes over the connection of a node's next successful probe. Zones that want the same node's id share it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use super::{
    super::node::{Endpoint, IdentityQuery, IdentityReply},
    schedule::ZoneKey,
};

/// Identity queries in flight for all zones together. One takes a millisecond, and a node is asked once a minute, so this
/// is enough for many thousands of nodes; beyond it nodes are asked with a later probe.
const IN_FLIGHT_MAX: usize = 64;

/// What all zones want to know, and what they have not fetched.
#[derive(Debug, Default)]
pub(super) struct Identities {
    /// How each zone asks. Addresses come from the network, so this hash is the one that cannot be aimed at.
    wanted: HashMap<Endpoint, BTreeMap<ZoneKey, IdentityQuery>>,
    zones: FxHashMap<ZoneKey, ZoneIdentities>,
    /// Endpoints with a query on its way, or with the probe that it waits for.
    in_flight: HashSet<Endpoint>,
}

#[derive(Debug, Default)]
struct ZoneIdentities {
    wanted: HashSet<Endpoint>,
    /// The newest reply of each node.
    replies: BTreeMap<IpAddr, (Endpoint, IdentityReply)>,
    arrived: Arc<Notify>,
}

impl Identities {
    /// A zone that wants nothing yet, and what is notified when a reply arrives for it.
    pub(super) fn join(&mut self, zone: ZoneKey) -> Arc<Notify> {
        self.zones.entry(zone).or_default().arrived.clone()
    }

    /// The zone wants nothing any more.
    pub(super) fn leave(&mut self, zone: ZoneKey) {
        self.keep_only(zone, |_| false);
        self.zones.remove(&zone);
    }

    /// The zone does not want the ids of other endpoints than these any more, nor their replies.
    pub(super) fn keep_only(&mut self, zone: ZoneKey, is_followed: impl Fn(&Endpoint) -> bool) {
        let Some(own) = self.zones.get_mut(&zone) else { return };
        own.replies.retain(|_, (endpoint, _)| is_followed(endpoint));
        for endpoint in own.wanted.extract_if(|endpoint| !is_followed(endpoint)) {
            if let Some(wanted) = self.wanted.get_mut(&endpoint) {
                wanted.remove(&zone);
                if wanted.is_empty() {
                    self.wanted.remove(&endpoint);
                }
            }
        }
    }

    /// The zone wants to know the id of this node's cluster.
    pub(super) fn want(&mut self, zone: ZoneKey, endpoint: &Endpoint, query: &IdentityQuery) {
        let Some(own) = self.zones.get_mut(&zone) else { return };
        own.wanted.insert(endpoint.clone());
        self.wanted.entry(endpoint.clone()).or_default().insert(zone, query.clone());
    }

    /// The query that a probe carries which begins now; it is to be reported to [`Self::end`]. One with a signature goes
    /// first: an id serves all zones, and a query without one may be refused.
    pub(super) fn begin(&mut self, endpoint: &Endpoint) -> Option<IdentityQuery> {
        if self.in_flight.len() >= IN_FLIGHT_MAX || self.in_flight.contains(endpoint) {
            return None;
        }
        let wanted = self.wanted.get(endpoint)?;
        let query = wanted.values().find(|query| query.is_signed()).or_else(|| wanted.values().next())?.clone();
        self.in_flight.insert(endpoint.clone());
        Some(query)
    }

    /// A query has ended; `None`: it was not sent. An id serves every zone that wants it, any other reply only those that
    /// ask in the same way; the others are served by later probes.
    pub(super) fn end(&mut self, endpoint: &Endpoint, query: &IdentityQuery, reply: Option<IdentityReply>) {
        self.in_flight.remove(endpoint);
        let (Some(reply), Some(wanted)) = (reply, self.wanted.get_mut(endpoint)) else { return };
        let serves_all = matches!(reply, IdentityReply::Id(_));
        let served = wanted.extract_if(.., |_, other| serves_all || other.is_same(query));
        for (zone, _) in served {
            let Some(zone) = self.zones.get_mut(&zone) else { continue };
            zone.wanted.remove(endpoint);
            zone.replies.insert(endpoint.address, (endpoint.clone(), reply.clone()));
            zone.arrived.notify_one();
        }
        if wanted.is_empty() {
            self.wanted.remove(endpoint);
        }
    }

    /// A reply that the zone has not fetched yet.
    pub(super) fn take(&mut self, zone: ZoneKey) -> Option<(IpAddr, IdentityReply)> {
        let (address, (_, reply)) = self.zones.get_mut(&zone)?.replies.pop_first()?;
        Some((address, reply))
    }

    /// No query is in flight any more; what zones want stays.
    pub(super) fn renew(&mut self) {
        self.in_flight.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU16, path::Path};

    use proptest::prelude::*;

    use super::{super::schedule::Schedule, *};
    use crate::{
        config::{Config, Scheme},
        discovery::node::{NodeClient, UnknownIdentity},
        types::ClusterId,
    };

    const KEYS: &str = "identity = { access_key = \"dns\", secret_key_file = \"/s\" }";

    fn endpoint(n: u8) -> Endpoint {
        let port = NonZeroU16::new(8000).unwrap();
        Endpoint { scheme: Scheme::Http, address: IpAddr::from([10, 0, 0, n]), port }
    }

    fn query(client: &NodeClient, keys: &str) -> IdentityQuery {
        let text = format!("[zones.\"a\"]\nseeds = [\"10.0.0.1\"]\n{keys}\n");
        let config = Config::parse(Path::new("z.toml"), text.as_bytes()).unwrap();
        client.identity_query(config.zones.values().next().unwrap()).unwrap()
    }

    fn zones(identities: &mut Identities, count: u64) -> Vec<ZoneKey> {
        let mut schedule = Schedule::new(1);
        let keys: Vec<_> = (0..count).map(|_| schedule.subscribe().0).collect();
        keys.iter().for_each(|&key| _ = identities.join(key));
        keys
    }

    fn id() -> Option<IdentityReply> {
        ClusterId::new([7; 16]).map(IdentityReply::Id)
    }

    #[test]
    fn an_id_serves_all_zones_and_another_reply_those_that_ask_alike() {
        let client = NodeClient::new();
        let unsigned = query(&client, "");
        let signed = query(&client, KEYS);
        let mut identities = Identities::default();
        let zones = zones(&mut identities, 3);
        let node = endpoint(1);
        for (zone, query) in zones.iter().zip([&unsigned, &signed, &unsigned]) {
            identities.want(*zone, &node, query);
        }
        let first = identities.begin(&node).unwrap();
        assert!(first.is_signed(), "it goes first");
        assert!(identities.begin(&node).is_none() && identities.begin(&endpoint(2)).is_none());
        let why = IdentityReply::Unknown(UnknownIdentity::NoRow);
        identities.end(&node, &first, Some(why.clone()));
        assert_eq!(
            zones.iter().map(|&zone| identities.take(zone)).collect::<Vec<_>>(),
            [None, Some((node.address, why)), None]
        );
        let second = identities.begin(&node).unwrap();
        assert!(second.is_same(&unsigned));
        identities.end(&node, &second, None);
        identities.want(zones[1], &node, &signed);
        let third = identities.begin(&node).unwrap();
        identities.end(&node, &third, id());
        assert!(zones.iter().all(|&zone| identities.take(zone) == Some((node.address, id().unwrap()))));
        assert!(identities.begin(&node).is_none() && identities.wanted.is_empty());
    }

    #[test]
    fn queries_in_flight_are_bounded() {
        let query = query(&NodeClient::new(), "");
        let mut identities = Identities::default();
        let zone = zones(&mut identities, 1)[0];
        (0..=200).for_each(|n| identities.want(zone, &endpoint(n), &query));
        assert_eq!((0..=200).filter(|&n| identities.begin(&endpoint(n)).is_some()).count(), IN_FLIGHT_MAX);
        identities.end(&endpoint(0), &query, None);
        assert!(identities.begin(&endpoint(200)).is_some());
        identities.renew();
        assert!(identities.begin(&endpoint(0)).is_some(), "what was lost is asked again");
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Want(usize, u8),
        Follow(usize, u8),
        Begin(u8),
        End(usize, u8),
        Take(usize),
        Leave(usize),
        Join(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3_usize, 0..4_u8).prop_map(|(zone, n)| Step::Want(zone, n)),
            1 => (0..3_usize, 0..4_u8).prop_map(|(zone, n)| Step::Follow(zone, n)),
            4 => (0..4_u8).prop_map(Step::Begin),
            4 => (0..4_usize, 0..3_u8).prop_map(|(index, reply)| Step::End(index, reply)),
            2 => (0..3_usize).prop_map(Step::Take),
            1 => (0..3_usize).prop_map(Step::Leave),
            1 => (0..3_usize).prop_map(Step::Join),
        ]
    }

    proptest! {
        #[test]
        fn both_sides_agree_on_what_is_wanted(steps in prop::collection::vec(step(), 0..60)) {
            let client = NodeClient::new();
            let queries = [query(&client, ""), query(&client, KEYS), query(&client, "cluster = \"x\"")];
            let mut identities = Identities::default();
            let zones = zones(&mut identities, 3);
            let mut flights: Vec<(Endpoint, IdentityQuery)> = Vec::new();
            for step in steps {
                match step {
                    Step::Want(zone, n) => identities.want(zones[zone], &endpoint(n), &queries[zone]),
                    Step::Follow(zone, n) => identities.keep_only(zones[zone], |followed| *followed == endpoint(n)),
                    Step::Begin(n) => flights.extend(identities.begin(&endpoint(n)).map(|query| (endpoint(n), query))),
                    Step::End(index, reply) if index < flights.len() => {
                        let (endpoint, query) = flights.remove(index);
                        let replies = [None, id(), Some(IdentityReply::Unknown(UnknownIdentity::NoRow))];
                        identities.end(&endpoint, &query, replies[usize::from(reply)].clone());
                    }
                    Step::Take(zone) => _ = identities.take(zones[zone]),
                    Step::Leave(zone) => identities.leave(zones[zone]),
                    Step::Join(zone) => _ = identities.join(zones[zone]),
                    Step::End(..) => {}
                }
                prop_assert_eq!(identities.in_flight.len(), flights.len());
                let of_endpoints: usize = identities.wanted.values().map(BTreeMap::len).sum();
                let of_zones: usize = identities.zones.values().map(|zone| zone.wanted.len()).sum();
                prop_assert_eq!(of_endpoints, of_zones);
                prop_assert!(identities.wanted.values().all(|wanted| !wanted.is_empty()));
            }
        }
    }
}
