//! The truth that the search tells its zones about: four addresses, whose they are, and what each node has noticed.

use std::{fmt, net::IpAddr};

use crate::types::NodeSet;

/// As many addresses as there are nodes; a story with two clusters and a spare address needs no more.
pub(super) const ADDRESSES: usize = 4;

/// The addresses, by their numbers.
pub(super) const ALL: [usize; ADDRESSES] = [0, 1, 2, 3];

/// One address.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct AddressState {
    /// The cluster whose node lives there, or lived there and may return.
    pub(super) owner: Option<usize>,
    /// It answers; otherwise it refuses.
    pub(super) alive: bool,
    /// On which side of a split it is.
    pub(super) side: bool,
    /// Whom it lists: one bit for each address.
    pub(super) view: u8,
}

/// The truth.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct World(pub(super) [AddressState; ADDRESSES]);

/// What may happen. Nodes notice only by gossip, each for itself; but a node that starts or returns has just looked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// A node refuses from now on. Its peers list it still.
    Crash(usize),
    /// A crashed node answers again.
    Return(usize),
    /// Gossip catches up in a node.
    Gossip(usize),
    /// A node and its peers lose sight of one another.
    Isolate(usize),
    /// These two lose sight of the two others.
    Split(usize, usize),
    /// A cluster sees itself whole again.
    Heal(usize),
    /// A node goes for ever, and another one starts elsewhere in its stead.
    Replace(usize, usize),
    /// A node of this cluster starts at a free address.
    Join(usize, usize),
    /// The other cluster is given the address of a node.
    Recycle(usize),
}

impl World {
    /// Who has each address, one letter an address: `A`, `B`, or `.` for none. All nodes live and see each other.
    pub(super) fn new(owners: &str) -> Self {
        let mut world = Self([AddressState::default(); ADDRESSES]);
        for (place, owner) in world.0.iter_mut().zip(owners.chars()) {
            let owner = ['A', 'B'].iter().position(|letter| *letter == owner);
            (place.owner, place.alive) = (owner, owner.is_some());
        }
        world.calmed()
    }

    /// The same when every split is over and gossip has caught up.
    pub(super) fn calmed(mut self) -> Self {
        self.0.iter_mut().for_each(|place| place.side = false);
        for n in ALL {
            self.0[n].view = self.sight(n);
        }
        self
    }

    /// Whether a node of the cluster answers there.
    pub(super) fn serves(&self, n: usize, cluster: usize) -> bool {
        self.0[n].alive && self.0[n].owner == Some(cluster)
    }

    /// The nodes of a cluster that live.
    pub(super) fn alive(&self, cluster: usize) -> Option<NodeSet> {
        NodeSet::new(ALL.into_iter().filter(|&n| self.serves(n, cluster)).map(address))
    }

    /// What a node sends when it is asked for its list; `None`: it refuses.
    pub(super) fn list(&self, n: usize) -> Option<NodeSet> {
        let place = self.0[n];
        if place.alive {
            NodeSet::new(ALL.into_iter().filter(|&other| place.view & bit(other) != 0).map(address))
        } else {
            None
        }
    }

    /// Everything that may happen now.
    pub(super) fn events(&self, clusters: usize) -> Vec<Event> {
        let mut events = Vec::new();
        for n in ALL {
            self.events_at(n, clusters, &mut events);
        }
        for cluster in 0..clusters {
            let of = |n: &usize| self.0[*n].owner == Some(cluster);
            if ALL.into_iter().filter(of).any(|n| self.0[n].side) {
                events.push(Event::Heal(cluster));
            } else if ALL.into_iter().all(|n| self.serves(n, cluster)) {
                events.extend((1..ADDRESSES).map(|n| Event::Split(0, n)));
            }
        }
        events
    }

    fn events_at(&self, n: usize, clusters: usize, events: &mut Vec<Event>) {
        let Some(owner) = self.0[n].owner else {
            events.extend((0..clusters).map(|cluster| Event::Join(n, cluster)));
            return;
        };
        let same = |other: &usize| self.0[*other].owner == Some(owner);
        if self.0[n].alive {
            events.push(Event::Crash(n));
            if self.0[n].view != self.sight(n) {
                events.push(Event::Gossip(n));
            }
            if ALL.into_iter().filter(same).count() > 1 && !ALL.into_iter().filter(same).any(|other| self.0[other].side)
            {
                events.push(Event::Isolate(n));
            }
        } else {
            events.push(Event::Return(n));
        }
        events.extend(ALL.into_iter().filter(|&to| self.0[to].owner.is_none()).map(|to| Event::Replace(n, to)));
        if clusters > 1 {
            events.push(Event::Recycle(n));
        }
    }

    /// The world after an event.
    pub(super) fn after(mut self, event: Event) -> Self {
        match event {
            Event::Crash(n) => (self.0[n].alive, self.0[n].view) = (false, 0),
            Event::Return(n) => {
                self.0[n].alive = true;
                self.0[n].view = self.sight(n);
            }
            Event::Gossip(n) => self.0[n].view = self.sight(n),
            Event::Isolate(n) => self.0[n].side = true,
            Event::Split(n, other) => (self.0[n].side, self.0[other].side) = (true, true),
            Event::Heal(cluster) => {
                let of = self.0.iter_mut().filter(|place| place.owner == Some(cluster));
                of.for_each(|place| place.side = false);
            }
            Event::Replace(from, to) => {
                let owner = self.0[from].owner;
                self.0[from] = AddressState::default();
                self.start(to, owner);
            }
            Event::Join(n, cluster) => self.start(n, Some(cluster)),
            Event::Recycle(n) => self.start(n, self.0[n].owner.map(|owner| 1 - owner)),
        }
        self
    }

    /// A new node starts. The other cluster has noticed that the address is no longer its own: from a peer that still
    /// lists it, no node knows better.
    fn start(&mut self, n: usize, owner: Option<usize>) {
        for place in self.0.iter_mut().filter(|place| place.owner != owner) {
            place.view &= !bit(n);
        }
        self.0[n] = AddressState { owner, alive: true, side: false, view: 0 };
        self.0[n].view = self.sight(n);
    }

    /// Whom a node would list if it knew everything that it can see.
    pub(super) fn sight(&self, n: usize) -> u8 {
        let AddressState { owner, alive: true, side, .. } = self.0[n] else { return 0 };
        let seen = |other: &usize| self.0[*other].alive && (self.0[*other].owner, self.0[*other].side) == (owner, side);
        ALL.into_iter().filter(seen).map(bit).sum()
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = |number: usize| ['A', 'B'][number];
        match *self {
            Self::Crash(n) => write!(f, "{} crashes", letter(n)),
            Self::Return(n) => write!(f, "{} returns", letter(n)),
            Self::Gossip(n) => write!(f, "gossip catches up in {}", letter(n)),
            Self::Isolate(n) => write!(f, "{} is isolated", letter(n)),
            Self::Split(n, other) => write!(f, "{}{} are split from the others", letter(n), letter(other)),
            Self::Heal(number) => write!(f, "{} is whole again", cluster(number)),
            Self::Replace(from, to) => write!(f, "{} is replaced by {}", letter(from), letter(to)),
            Self::Join(n, number) => write!(f, "{} joins {}", letter(n), cluster(number)),
            Self::Recycle(n) => write!(f, "{} is the other cluster's from now on", letter(n)),
        }
    }
}

fn bit(n: usize) -> u8 {
    1 << n
}

/// The letter that stories name an address by.
pub(super) fn letter(n: usize) -> char {
    ['a', 'b', 'c', 'd'][n]
}

/// An address by its number.
pub(super) fn address(n: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(n + 1).unwrap()])
}

/// The number of an address.
pub(super) fn number(address: IpAddr) -> usize {
    ALL.into_iter().find(|&n| self::address(n) == address).unwrap()
}
