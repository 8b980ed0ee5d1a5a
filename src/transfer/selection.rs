//! Which addresses secondaries get of a zone that has many: pure policy.

use std::{hash::Hasher as _, net::IpAddr};

use siphasher::sip::SipHasher24;

use crate::types::ZoneName;

/// At most `count` of the addresses, in their order, chosen by rendezvous hashing: each address has a rank that depends on
/// it and the zone alone. So all replicas choose the same, other zones choose others, and where one address leaves, only
/// its place is taken by another.
pub(super) fn select<A: Copy + Into<IpAddr> + Ord>(zone: &ZoneName, addresses: &[A], count: usize) -> Vec<A> {
    let mut ranked: Vec<_> = addresses.iter().map(|address| (rank(zone, (*address).into()), *address)).collect();
    ranked.sort_unstable();
    ranked.truncate(count);
    let mut selected: Vec<_> = ranked.into_iter().map(|(_, address)| address).collect();
    selected.sort_unstable();
    selected
}

fn rank(zone: &ZoneName, address: IpAddr) -> u64 {
    // The key is fixed, and octets are hashed, because replicas of any version have to agree. No client chooses addresses.
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    hasher.write(zone.wire());
    match address {
        IpAddr::V4(v4) => hasher.write(&v4.octets()),
        IpAddr::V6(v6) => hasher.write(&v6.octets()),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> ZoneName {
        ZoneName::parse(name).unwrap()
    }

    #[test]
    fn the_choice_stays_the_same_in_every_version() {
        let addresses: Vec<_> = (1..=9).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
        let selected = select(&zone("a.example"), &addresses, 3);
        assert_eq!(selected.iter().map(|address| address.octets()[3]).collect::<Vec<_>>(), [2, 8, 9]);
    }

    #[test]
    fn zones_choose_different_addresses_equally_often() {
        let addresses: Vec<_> = (1..=20).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
        let mut chosen = [0; 21];
        for number in 0..500 {
            let selected = select(&zone(&format!("z{number}.example")), &addresses, 8);
            assert_eq!(selected.len(), 8);
            selected.iter().for_each(|address| chosen[usize::from(address.octets()[3])] += 1);
        }
        assert!(chosen[1..].iter().all(|count| (150..250).contains(count)), "{chosen:?}");
    }

    proptest! {
        #[test]
        fn an_address_that_leaves_changes_only_its_own_place(
            addresses in prop::collection::btree_set(any::<u32>(), 1..40), count in 1..12_usize, leaves in any::<prop::sample::Index>()
        ) {
            let addresses: Vec<_> = addresses.into_iter().map(Ipv4Addr::from_bits).collect();
            let before: BTreeSet<_> = select(&zone("a.example"), &addresses, count).into_iter().collect();
            prop_assert_eq!(before.len(), count.min(addresses.len()));
            let gone = addresses[leaves.index(addresses.len())];
            let rest: Vec<_> = addresses.iter().copied().filter(|address| *address != gone).collect();
            let after: BTreeSet<_> = select(&zone("a.example"), &rest, count).into_iter().collect();
            if before.contains(&gone) {
                let stayed: BTreeSet<_> = before.iter().copied().filter(|address| *address != gone).collect();
                prop_assert!(stayed.is_subset(&after));
                prop_assert!(after.len() <= stayed.len() + 1);
            } else {
                prop_assert_eq!(before, after);
            }
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(addresses in prop::collection::btree_set(any::<u32>(), 1..20)) {
            let list: Vec<_> = addresses.into_iter().map(Ipv4Addr::from_bits).collect();
            let reversed: Vec<_> = list.iter().rev().copied().collect();
            prop_assert_eq!(select(&zone("a"), &list, 8), select(&zone("a"), &reversed, 8));
        }
    }
}
