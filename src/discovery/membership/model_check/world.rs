//! The truth: some addresses, whose they are, and what each node has noticed.

use std::{fmt, net::IpAddr};

use crate::types::{ClusterId, NodeSet};

/// One address.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct AddressState {
    /// The cluster whose node lives there, or lived there and may return.
    pub(super) owner: Option<u8>,
    /// It answers; otherwise it refuses.
    pub(super) alive: bool,
    /// On which side of a split it is.
    pub(super) side: bool,
    /// The datacenter.
    pub(super) datacenter: u8,
    /// The nodes that it lists: one bit for each address.
    pub(super) view: u128,
}

/// Which nodes say which cluster they are of.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Ids {
    None,
    All,
    /// Every second one.
    Some,
}

/// The truth.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct World {
    pub(super) addresses: Vec<AddressState>,
    pub(super) ids: Ids,
}

/// What may happen. Nodes notice only by gossip, each for itself; but a node that starts or returns has just looked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Happening {
    /// A node refuses from now on. Its peers list it still.
    Crash(usize),
    /// A crashed node answers again.
    Return(usize),
    /// Gossip catches up in a node.
    Gossip(usize),
    /// A node and its peers lose sight of one another.
    Isolate(usize),
    /// These two lose sight of the others.
    Split(usize, usize),
    /// A cluster sees itself whole again.
    Heal(u8),
    /// A node goes for good, and another one starts elsewhere in its stead.
    Replace(usize, usize),
    /// A node of this cluster starts at a free address.
    Join(usize, u8),
    /// The other cluster is given the address of a node; its former peers list it until gossip catches up.
    Recycle(usize, u8),
}

impl World {
    /// Whose each address is, one letter an address: `A`, `B`, `C`, or `.` for none; lower case: in another datacenter.
    /// All nodes live and see each other.
    pub(super) fn new(owners: &str, ids: Ids) -> Self {
        let addresses = owners.chars().map(|letter| {
            let owner = "ABC".find(letter.to_ascii_uppercase()).and_then(|at| u8::try_from(at).ok());
            let datacenter = u8::from(letter.is_ascii_lowercase());
            AddressState { owner, alive: owner.is_some(), datacenter, ..AddressState::default() }
        });
        let world = Self { addresses: addresses.collect(), ids };
        world.calmed()
    }

    /// All addresses.
    pub(super) fn all(&self) -> std::ops::Range<usize> {
        0..self.addresses.len()
    }

    /// The same when every split is over and gossip has caught up.
    pub(super) fn calmed(mut self) -> Self {
        self.addresses.iter_mut().for_each(|address| address.side = false);
        for n in self.all() {
            self.addresses[n].view = self.sight(n);
        }
        self
    }

    /// Whether a node of the cluster answers there.
    pub(super) fn serves(&self, n: usize, cluster: u8) -> bool {
        self.addresses[n].alive && self.addresses[n].owner == Some(cluster)
    }

    /// The nodes of a cluster that live, in one datacenter or in all.
    pub(super) fn alive(&self, cluster: u8, datacenter: Option<u8>) -> Option<NodeSet> {
        let is_there = |n: &usize| datacenter.is_none_or(|there| self.addresses[*n].datacenter == there);
        NodeSet::new(self.all().filter(|&n| self.serves(n, cluster)).filter(is_there).map(address))
    }

    /// What a node sends when it is asked for its list of a datacenter, or of all; `None`: it refuses.
    pub(super) fn list(&self, n: usize, datacenter: Option<u8>) -> Option<Option<NodeSet>> {
        let sender = self.addresses[n];
        let is_listed = |other: &usize| {
            sender.view & bit(*other) != 0 && datacenter.is_none_or(|there| self.addresses[*other].datacenter == there)
        };
        sender.alive.then(|| NodeSet::new(self.all().filter(is_listed).map(address)))
    }

    /// The cluster that a node names.
    pub(super) fn id(&self, n: usize) -> Option<ClusterId> {
        let names = match self.ids {
            Ids::None => false,
            Ids::All => true,
            Ids::Some => n.is_multiple_of(2),
        };
        self.addresses[n].owner.filter(|_| names).map(Self::id_of)
    }

    /// The id of a cluster.
    pub(super) fn id_of(cluster: u8) -> ClusterId {
        ClusterId::new([cluster + 1; 16]).unwrap()
    }

    /// Everything that may happen now.
    pub(super) fn happenings(&self, clusters: u8) -> Vec<Happening> {
        let mut happenings = Vec::new();
        for n in self.all() {
            self.happenings_at(n, clusters, &mut happenings);
        }
        for cluster in 0..clusters {
            let of: Vec<usize> = self.all().filter(|n| self.addresses[*n].owner == Some(cluster)).collect();
            if of.iter().any(|n| self.addresses[*n].side) {
                happenings.push(Happening::Heal(cluster));
            } else if of.len() == 4 && of.iter().all(|n| self.addresses[*n].alive) {
                happenings.extend(of[1..].iter().map(|n| Happening::Split(of[0], *n)));
            }
        }
        happenings
    }

    fn happenings_at(&self, n: usize, clusters: u8, happenings: &mut Vec<Happening>) {
        let Some(owner) = self.addresses[n].owner else {
            happenings.extend((0..clusters).map(|cluster| Happening::Join(n, cluster)));
            return;
        };
        let peers: Vec<usize> = self.all().filter(|other| self.addresses[*other].owner == Some(owner)).collect();
        if self.addresses[n].alive {
            happenings.push(Happening::Crash(n));
            if self.addresses[n].view != self.sight(n) {
                happenings.push(Happening::Gossip(n));
            }
            if peers.len() > 1 && !peers.iter().any(|other| self.addresses[*other].side) {
                happenings.push(Happening::Isolate(n));
            }
        } else {
            happenings.push(Happening::Return(n));
        }
        let free = self.all().filter(|to| self.addresses[*to].owner.is_none());
        happenings.extend(free.map(|to| Happening::Replace(n, to)));
        happenings.extend((0..clusters).filter(|other| *other != owner).map(|other| Happening::Recycle(n, other)));
    }

    /// The world after something has happened.
    pub(super) fn after(mut self, happening: Happening) -> Self {
        match happening {
            Happening::Crash(n) => {
                self.addresses[n].alive = false;
                self.addresses[n].view = 0;
            }
            Happening::Return(n) => {
                self.addresses[n].alive = true;
                self.addresses[n].view = self.sight(n);
            }
            Happening::Gossip(n) => self.addresses[n].view = self.sight(n),
            Happening::Isolate(n) => self.addresses[n].side = true,
            Happening::Split(n, other) => {
                self.addresses[n].side = true;
                self.addresses[other].side = true;
            }
            Happening::Heal(cluster) => {
                let of = self.addresses.iter_mut().filter(|address| address.owner == Some(cluster));
                of.for_each(|address| address.side = false);
            }
            Happening::Replace(from, to) => {
                let owner = self.addresses[from].owner;
                let datacenter = self.addresses[from].datacenter;
                self.addresses[from] = AddressState { datacenter, ..AddressState::default() };
                self.start(to, owner);
            }
            Happening::Join(n, cluster) | Happening::Recycle(n, cluster) => self.start(n, Some(cluster)),
        }
        self
    }

    /// A new node starts.
    fn start(&mut self, n: usize, owner: Option<u8>) {
        let datacenter = self.addresses[n].datacenter;
        self.addresses[n] = AddressState { owner, alive: true, datacenter, ..AddressState::default() };
        self.addresses[n].view = self.sight(n);
    }

    /// The nodes that a node would list if it knew everything that it can see.
    pub(super) fn sight(&self, n: usize) -> u128 {
        let AddressState { owner, alive: true, side, .. } = self.addresses[n] else { return 0 };
        let is_seen = |other: &usize| {
            let other = self.addresses[*other];
            other.alive && other.owner == owner && other.side == side
        };
        self.all().filter(is_seen).map(bit).sum()
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cluster = |number: u8| ['A', 'B', 'C'][usize::from(number)];
        match *self {
            Self::Crash(n) => write!(f, "{} crashes", letter(n)),
            Self::Return(n) => write!(f, "{} returns", letter(n)),
            Self::Gossip(n) => write!(f, "gossip catches up in {}", letter(n)),
            Self::Isolate(n) => write!(f, "{} is isolated", letter(n)),
            Self::Split(n, other) => write!(f, "{}{} are split from the others", letter(n), letter(other)),
            Self::Heal(number) => write!(f, "{} is whole again", cluster(number)),
            Self::Replace(from, to) => write!(f, "{} is replaced by {}", letter(from), letter(to)),
            Self::Join(n, number) => write!(f, "{} joins {}", letter(n), cluster(number)),
            Self::Recycle(n, number) => write!(f, "{} is given to {}", letter(n), cluster(number)),
        }
    }
}

fn bit(n: usize) -> u128 {
    1 << n
}

/// The letter by which an address is named.
pub(super) fn letter(n: usize) -> char {
    char::from(b'a' + u8::try_from(n % 26).unwrap())
}

/// An address by its number.
pub(super) fn address(n: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(n + 1).unwrap()])
}

/// The number of an address.
pub(super) fn number(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => usize::from(v4.octets()[3]) - 1,
        IpAddr::V6(_) => unreachable!("worlds have IPv4 addresses only"),
    }
}
