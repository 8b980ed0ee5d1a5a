//! The copy of one zone.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    num::NonZeroU8,
};

use smallvec::SmallVec;

use super::shuffle::ShuffleBag;
use crate::{
    answer::{
        soa::SoaParts,
        wire::{FLAG_TRUNCATED, HEADER_OCTETS, RCODE_BITS},
    },
    table::{ViewRole, ZoneEntry, ZoneSettings},
    types::{AllowedClients, AnswerCount, ZoneState},
};

/// Addresses of each family that lie in a [`CachedZone`] itself. A zone with more nodes has them behind a pointer.
pub(super) const INLINE_V4: usize = 10;
pub(super) const INLINE_V6: usize = 2;

/// Octets of MNAME that lie there: its labels in front of the zone's name, of which there is one by default.
const INLINE_PRIMARY: usize = 16;

/// The table version of no copy: the first one is 1.
pub(super) const NEVER: u64 = 0;

/// The copy of one zone. In this order and aligned to a cache line, a question for A reads the first two lines of it, and one
/// for anything that the zone does not have reads the first.
#[derive(Default)]
#[repr(C, align(64))]
pub(in crate::answer) struct CachedZone {
    /// The [`crate::table::table_version`] that it was copied at; [`NEVER`]: its lists may be older than the zone's.
    pub(super) version: u64,
    /// The generation of the zone's id: distinguishes the zone from earlier ones with its index.
    pub(super) generation: u32,
    pub(super) summary: ZoneSummary,
    soa: CachedSoa,
    pub(super) v4: ShuffleBag<[Ipv4Addr; INLINE_V4]>,
    pub(super) v6: ShuffleBag<[Ipv6Addr; INLINE_V6]>,
    name_servers: Option<Box<NameServerRecords>>,
}

/// Three cache lines, so that ten thousand zones take 2 MB in each worker.
const _: () = assert!(size_of::<CachedZone>() == 3 * 64);
const _: () = assert!(std::mem::offset_of!(CachedZone, v4) == 64);

/// What the fast path needs of a zone besides its records.
#[derive(Clone, Copy)]
pub(in crate::answer) struct ZoneSummary {
    /// TTL of the addresses, in seconds.
    pub(in crate::answer) ttl: u32,
    pub(in crate::answer) count: AnswerCount,
    pub(in crate::answer) subdomains: bool,
    pub(in crate::answer) client_matters: ClientMatters,
    pub(in crate::answer) is_stale: bool,
    /// There is a node, or a seed, to answer with.
    pub(in crate::answer) is_answered: bool,
    /// Of each family, whether there is an address.
    pub(in crate::answer) has_v4: bool,
    pub(in crate::answer) has_v6: bool,
}

/// What the answer depends on of the client.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(in crate::answer) enum ClientMatters {
    /// Nothing: every client may ask, and gets the same.
    No,
    /// Every client may ask, and some get the addresses of a view.
    ForView,
    /// Not every client may ask.
    ForAccess,
}

impl ClientMatters {
    fn of(settings: &ZoneSettings) -> Self {
        match (&settings.clients, settings.views) {
            (AllowedClients::Networks(_), _) => Self::ForAccess,
            (AllowedClients::Any, ViewRole::HasViews) => Self::ForView,
            (AllowedClients::Any, ViewRole::Plain | ViewRole::IsView) => Self::No,
        }
    }
}

/// [`SoaParts`] that are kept.
#[derive(Default)]
struct CachedSoa {
    serial: u32,
    negative_ttl: u32,
    primary: SmallVec<[u8; INLINE_PRIMARY]>,
    /// `None`: only the slow path can write the SOA.
    shared: Option<NonZeroU8>,
    zone_octets: u8,
}

/// The NS records of a zone and the addresses of its name servers, as they follow the question in a reply.
pub(in crate::answer) struct NameServerRecords {
    /// The table that knew the addresses.
    table_version: u64,
    /// The zone's serial, which grows when its name servers change.
    serial: u32,
    pub(in crate::answer) answers: u16,
    pub(in crate::answer) additionals: u16,
    pub(in crate::answer) octets: Box<[u8]>,
}

impl CachedZone {
    #[cold]
    pub(super) fn reset(&mut self, generation: u32) {
        *self = Self { generation, ..Self::default() };
    }

    pub(super) fn copy(&mut self, entry: &ZoneEntry) {
        let answers = entry.answers();
        self.summary = ZoneSummary {
            ttl: answers.address_ttl(),
            count: answers.settings.count,
            subdomains: answers.settings.subdomains,
            client_matters: ClientMatters::of(&answers.settings),
            is_stale: answers.state() == ZoneState::Stale,
            is_answered: answers.answered.is_some(),
            has_v4: !answers.v4.is_empty(),
            has_v6: !answers.v6.is_empty(),
        };
        let servers = &answers.settings.name_servers;
        self.soa.set(SoaParts::new(entry.name(), servers, answers.serial, answers.negative_ttl()), answers.serial);
        self.v4.update(&answers.v4);
        self.v6.update(&answers.v6);
    }

    pub(super) fn soa(&self) -> Option<SoaParts<'_>> {
        let CachedSoa { serial, negative_ttl, ref primary, shared, zone_octets } = self.soa;
        let shared = usize::from(shared?.get());
        Some(SoaParts { zone_octets: usize::from(zone_octets), primary, shared, serial, negative_ttl })
    }

    pub(super) fn name_servers(&self, table_version: u64) -> Option<&NameServerRecords> {
        let is_current =
            |records: &&NameServerRecords| (records.table_version, records.serial) == (table_version, self.soa.serial);
        self.name_servers.as_deref().filter(is_current)
    }

    pub(super) fn keep_name_servers(&mut self, records: NameServerRecords) {
        self.name_servers = Some(Box::new(records));
    }
}

impl CachedSoa {
    fn set(&mut self, parts: Option<SoaParts<'_>>, serial: u32) {
        self.serial = serial;
        let octets =
            |parts: &SoaParts<'_>| Some((u8::try_from(parts.zone_octets).ok()?, u8::try_from(parts.shared).ok()?));
        let Some((parts, (zone_octets, shared))) = parts.and_then(|parts| Some((parts, octets(&parts)?))) else {
            self.shared = None;
            return;
        };
        self.negative_ttl = parts.negative_ttl;
        self.zone_octets = zone_octets;
        self.shared = NonZeroU8::new(shared);
        self.primary.clear();
        self.primary.extend_from_slice(parts.primary);
        self.primary.shrink_to_fit();
    }
}

impl NameServerRecords {
    /// Reads them from a reply without OPT, in which records begin at an offset. `None`: it is an error.
    pub(in crate::answer) fn read(reply: &[u8], records_at: usize, table_version: u64, serial: u32) -> Option<Self> {
        let &[_, _, flags, low_flags, _, _, an0, an1, _, _, ar0, ar1] = reply.first_chunk::<HEADER_OCTETS>()?;
        let is_whole = flags & FLAG_TRUNCATED == 0 && low_flags & RCODE_BITS == 0;
        is_whole.then_some(Self {
            table_version,
            serial,
            answers: u16::from_be_bytes([an0, an1]),
            additionals: u16::from_be_bytes([ar0, ar1]),
            octets: reply.get(records_at..)?.into(),
        })
    }
}

impl Default for ZoneSummary {
    /// Of no zone.
    fn default() -> Self {
        Self {
            ttl: 0,
            count: AnswerCount::ONE,
            subdomains: false,
            client_matters: ClientMatters::ForAccess,
            is_stale: false,
            is_answered: false,
            has_v4: false,
            has_v6: false,
        }
    }
}
