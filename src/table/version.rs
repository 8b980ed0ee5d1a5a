//! How often answers have changed, and which zones' have.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
};

use crate::types::ZoneName;

/// Changes that are kept: what fifty thousand zones have in some seconds. A reader that has missed more looks at all zones.
const CHANGED_ZONES_MAX: usize = 4096;

/// How often any zone has been given answers.
static TABLE_VERSION: AtomicU64 = AtomicU64::new(1);

/// The zones of the last versions. Its lock is held while the version grows, so that both belong together.
static CHANGED_ZONES: Mutex<VecDeque<ZoneName>> = Mutex::new(VecDeque::new());

/// How often the answers of any zone have changed; never 0. A worker reads this before it copies the answers of a zone:
/// while the number stays the same, the copy is up to date.
pub fn table_version() -> u64 {
    TABLE_VERSION.load(Acquire)
}

/// The version now, and the zones whose answers have changed since an earlier one, whatever table they are in. No zones: `since`
/// is too long ago, or `None`, so that any zone may have changed.
pub fn changed_zones(since: Option<u64>) -> (u64, Option<BTreeSet<ZoneName>>) {
    let zones = CHANGED_ZONES.lock().unwrap_or_else(PoisonError::into_inner);
    let version = table_version();
    (version, since.and_then(|since| last(&zones, version.checked_sub(since)?)))
}

/// Call this after the new answers of a zone are in place: a thread that sees the new number then sees them too.
pub(super) fn publish(zone: &ZoneName) {
    let mut zones = CHANGED_ZONES.lock().unwrap_or_else(PoisonError::into_inner);
    add(&mut zones, zone);
    TABLE_VERSION.fetch_add(1, Release);
}

fn add(zones: &mut VecDeque<ZoneName>, zone: &ZoneName) {
    if zones.len() == CHANGED_ZONES_MAX {
        zones.pop_front();
    }
    zones.push_back(zone.clone());
}

/// The zones of so many last changes; `None`: not all of these are kept.
fn last(zones: &VecDeque<ZoneName>, count: u64) -> Option<BTreeSet<ZoneName>> {
    let start = zones.len().checked_sub(usize::try_from(count).ok()?)?;
    Some(zones.iter().skip(start).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> ZoneName {
        ZoneName::parse(&format!("z{number}.changed.example")).unwrap()
    }

    #[test]
    fn the_last_changes_are_known_and_no_more() {
        let mut zones = VecDeque::new();
        for number in 0..CHANGED_ZONES_MAX + 10 {
            add(&mut zones, &name(number % 4000));
        }
        assert_eq!(last(&zones, 0), Some(BTreeSet::new()));
        assert_eq!(last(&zones, 2), Some([name(104), name(105)].into()));
        assert_eq!(last(&zones, CHANGED_ZONES_MAX as u64).unwrap().len(), 4000, "each zone once");
        assert_eq!(last(&zones, CHANGED_ZONES_MAX as u64 + 1), None);
        assert_eq!(last(&zones, u64::MAX), None);
    }

    #[test]
    fn a_change_is_seen_with_its_version() {
        let before = table_version();
        publish(&name(1));
        let (after, changed) = changed_zones(Some(before));
        // Other tests change zones meanwhile, perhaps many.
        assert!(after > before && changed.is_none_or(|changed| changed.contains(&name(1))));
        assert_eq!(changed_zones(None).1, None);
    }
}
