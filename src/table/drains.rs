//! Nodes that an operator takes out of the answers for some time. Pure: time is an argument.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::types::{AddressRules, ZoneName};

/// The longest drain. A node that is out of service for longer is to be excluded in the file, where others see it.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Drains at one time: every node of a large rack, or one node in each of many zones. It bounds the file, and what each zone
/// has to look through.
pub const DRAINS_MAX: usize = 256;

/// A node that is taken out of the answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Drain {
    /// As nodes list it, or as `map` translates it.
    pub node: IpAddr,
    /// In this zone; `None`: in every zone.
    pub zone: Option<ZoneName>,
    /// When it ends by itself.
    pub until: SystemTime,
}

impl Drain {
    /// A drain that begins now. It ends at a full second, as people and files write it, and never too early.
    pub fn beginning(now: SystemTime, node: IpAddr, zone: Option<ZoneName>, time: Duration) -> Self {
        let end = now.duration_since(UNIX_EPOCH).unwrap_or_default() + time;
        let seconds = end.as_secs() + u64::from(end.subsec_nanos() > 0);
        Self { node, zone, until: UNIX_EPOCH + Duration::from_secs(seconds) }
    }
}

/// No further drain can be added.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{DRAINS_MAX} drains are in force, and more are not possible; end one, or exclude nodes in the file")]
pub struct TooManyDrains;

/// The drains of a server: at most [`DRAINS_MAX`], one for each node and zone.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Drains(BTreeMap<(IpAddr, Option<ZoneName>), SystemTime>);

impl Drains {
    /// Adds a drain, or gives one that is in force another end.
    ///
    /// # Errors
    /// There are too many.
    pub fn add(&mut self, Drain { node, zone, until }: Drain) -> Result<(), TooManyDrains> {
        let key = (node, zone);
        if self.0.len() >= DRAINS_MAX && !self.0.contains_key(&key) {
            return Err(TooManyDrains);
        }
        self.0.insert(key, until);
        Ok(())
    }

    /// Ends the drain of a node in one zone; `None`: in every zone. Returns what has ended.
    pub fn end(&mut self, node: IpAddr, zone: Option<&ZoneName>) -> Vec<Drain> {
        self.remove(|drain| drain.node == node && (zone.is_none() || drain.zone.as_ref() == zone))
    }

    /// Ends the drains whose time is over. Returns them.
    pub fn expire(&mut self, now: SystemTime) -> Vec<Drain> {
        self.remove(|drain| drain.until <= now)
    }

    /// Removes the drains that end later than any command can ask for: the clock was wrong when they were made, or is wrong
    /// now. Returns them.
    pub fn remove_endless(&mut self, now: SystemTime) -> Vec<Drain> {
        // A drain ends at a full second.
        let latest = now + DRAIN_TIME_MAX + Duration::from_secs(1);
        self.remove(|drain| drain.until > latest)
    }

    fn remove(&mut self, is_removed: impl Fn(&Drain) -> bool) -> Vec<Drain> {
        let removed: Vec<_> = self.iter().filter(is_removed).collect();
        for Drain { node, zone, .. } in &removed {
            self.0.remove(&(*node, zone.clone()));
        }
        removed
    }

    /// Each of them, by node.
    pub fn iter(&self) -> impl Iterator<Item = Drain> {
        self.0.iter().map(|((node, zone), until)| Drain { node: *node, zone: zone.clone(), until: *until })
    }

    /// When the next one ends.
    pub fn next_end(&self) -> Option<SystemTime> {
        self.0.values().min().copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of every zone.
    pub fn everywhere(&self) -> ZoneDrains {
        ZoneDrains::new(self.iter().filter(|drain| drain.zone.is_none()))
    }

    /// Those of one zone. `everywhere` is what [`Self::everywhere`] returned: zones without drains of their own share it.
    pub fn of_zone(&self, zone: &ZoneName, everywhere: &ZoneDrains) -> ZoneDrains {
        if !self.0.keys().any(|(_, of)| of.as_ref() == Some(zone)) {
            return everywhere.clone();
        }
        ZoneDrains::new(self.iter().filter(|drain| drain.zone.as_ref().is_none_or(|of| of == zone)))
    }
}

/// The nodes that are drained in one zone, each with the end of its drain. Clones share them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ZoneDrains(Option<Arc<[(IpAddr, SystemTime)]>>);

impl FromIterator<(IpAddr, SystemTime)> for ZoneDrains {
    fn from_iter<I: IntoIterator<Item = (IpAddr, SystemTime)>>(drains: I) -> Self {
        Self::new(drains.into_iter().map(|(node, until)| Drain { node, zone: None, until }))
    }
}

impl ZoneDrains {
    /// Each node, and when its drain ends.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, SystemTime)> {
        self.0.iter().flat_map(|drains| drains.iter().copied())
    }

    /// Of two drains of a node the later end counts.
    fn new(drains: impl Iterator<Item = Drain>) -> Self {
        let mut ends = BTreeMap::new();
        for Drain { node, until, .. } in drains {
            let end = ends.entry(node).or_insert(until);
            *end = until.max(*end);
        }
        Self((!ends.is_empty()).then(|| ends.into_iter().collect()))
    }

    /// Until when a listed node is drained, under its own address or the one that is answered in its place; `None`: it is
    /// not.
    pub fn until(&self, listed: IpAddr, rules: &AddressRules) -> Option<SystemTime> {
        let drains = self.0.as_deref()?;
        let find = |node: IpAddr| {
            let index = drains.binary_search_by_key(&node, |(drained, _)| *drained).ok()?;
            drains.get(index).map(|(_, until)| *until)
        };
        find(listed).or_else(|| find(rules.translate(listed)))
    }

    /// Whether a listed node is drained.
    pub fn contains(&self, listed: IpAddr, rules: &AddressRules) -> bool {
        self.until(listed, rules).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;
    use crate::types::Translation;

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn zone(name: &str) -> Option<ZoneName> {
        Some(ZoneName::parse(name).unwrap())
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn drains(list: &[(u8, Option<ZoneName>, u64)]) -> Drains {
        let mut drains = Drains::default();
        for (node, zone, until) in list.iter().cloned() {
            drains.add(Drain { node: ip(node), zone, until: at(until) }).unwrap();
        }
        drains
    }

    #[test]
    fn a_zone_has_its_own_drains_and_those_of_every_zone() {
        let drains = drains(&[(1, None, 10), (1, zone("a"), 20), (2, zone("a"), 30), (3, zone("b"), 40)]);
        let rules = AddressRules::default();
        let everywhere = drains.everywhere();
        let ends = |name: &str| {
            let zone = drains.of_zone(&ZoneName::parse(name).unwrap(), &everywhere);
            [1, 2, 3].map(|node| zone.until(ip(node), &rules))
        };
        assert_eq!(ends("a"), [Some(at(20)), Some(at(30)), None], "the later end counts");
        assert_eq!(ends("b"), [Some(at(10)), None, Some(at(40))]);
        assert_eq!(ends("c"), [Some(at(10)), None, None]);
        assert_eq!(Drains::default().everywhere(), ZoneDrains::default());
    }

    #[test]
    fn a_node_is_drained_under_its_translated_address_too() {
        let map = vec![Translation::new("10.0.0.0/24".parse().unwrap(), "192.0.2.0/24".parse().unwrap()).unwrap()];
        let rules = AddressRules { map, ..AddressRules::default() };
        let mut drains = Drains::default();
        drains.add(Drain { node: "192.0.2.7".parse().unwrap(), zone: None, until: at(1) }).unwrap();
        assert!(drains.everywhere().contains(ip(7), &rules));
        assert!(!drains.everywhere().contains(ip(7), &AddressRules::default()));
        assert!(!drains.everywhere().contains(ip(8), &rules));
    }

    #[test]
    fn a_drain_ends_at_a_full_second_and_never_too_early() {
        let end = |millis, seconds| {
            let now = UNIX_EPOCH + Duration::from_millis(millis);
            Drain::beginning(now, ip(1), None, Duration::from_secs(seconds)).until
        };
        assert_eq!([end(1000, 2), end(1001, 2)], [at(3), at(4)]);
    }

    #[test]
    fn drains_end_by_command_and_by_themselves() {
        let mut some = drains(&[(1, None, 10), (1, zone("a"), 20), (2, zone("a"), 30)]);
        assert_eq!(some.next_end(), Some(at(10)));
        assert_eq!(some.expire(at(9)), []);
        assert_eq!(some.expire(at(10)), [Drain { node: ip(1), zone: None, until: at(10) }]);
        assert_eq!(some.end(ip(1), zone("b").as_ref()), []);
        assert_eq!(some.end(ip(1), None).len(), 1);
        assert_eq!(some.end(ip(2), zone("a").as_ref()).len(), 1);
        assert!(some.is_empty() && some.next_end().is_none());
        let mut endless = drains(&[(1, None, 3600), (2, None, 8 * 24 * 3600)]);
        assert_eq!(endless.remove_endless(at(0)).len(), 1);
        assert_eq!(endless.iter().count(), 1);
    }

    #[test]
    fn their_number_is_bounded_and_one_that_is_there_can_be_prolonged() {
        let mut drains = Drains::default();
        let address = |n: usize| IpAddr::from(Ipv4Addr::from_bits(n as u32 + 1));
        for n in 0..DRAINS_MAX {
            drains.add(Drain { node: address(n), zone: None, until: at(1) }).unwrap();
        }
        assert_eq!(drains.add(Drain { node: address(DRAINS_MAX), zone: None, until: at(1) }), Err(TooManyDrains));
        assert_eq!(drains.add(Drain { node: address(0), zone: None, until: at(2) }), Ok(()));
    }

    proptest! {
        #[test]
        fn what_has_expired_is_gone_and_what_has_not_is_there(
            ends in prop::collection::vec((any::<u8>(), 0_u64..100), 0..20), now in 0_u64..100
        ) {
            let list: Vec<_> = ends.into_iter().map(|(node, until)| (node, None, until)).collect();
            let mut some = drains(&list);
            let all = some.iter().count();
            let expired = some.expire(at(now));
            prop_assert_eq!(expired.len() + some.iter().count(), all);
            prop_assert!(expired.iter().all(|drain| drain.until <= at(now)));
            prop_assert!(some.next_end().is_none_or(|end| end > at(now)));
        }
    }
}
