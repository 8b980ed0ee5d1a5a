//! Host names among the seeds, resolved off the poll path and once for all zones.
//!
//! A look-up is the system's own (`getaddrinfo`): it blocks a thread, and nothing can end it. So each name has at
//! most one in flight, all names share a few slots, and a look-up that hangs keeps its slot until it ends, while
//! zones use the addresses of the last successful one. Those stay indefinitely: an old address is a better guess than
//! none.

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, watch},
    task::{JoinError, JoinHandle, spawn_blocking},
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::types::{Seed, ZoneName, canonical, is_publishable};

/// Look-ups in flight for all names together: each blocks a thread, and resolvers on the host serve others too.
const LOOKUPS_MAX: usize = 16;

/// After this long the name counts as failing, although its look-up may still end: the timeout of libc for one server.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses are looked up again at the zone's refresh, but not more often than this: what resolvers serve, they
/// cache for seconds at least.
pub const AGE_MAX: Duration = Duration::from_secs(5);

/// The time between a failed look-up and the next, and the least between any two: a failing name server is asked
/// once a second.
const RETRY: Duration = Duration::from_secs(1);

/// Addresses kept of one name: a cluster's worth.
const ADDRESSES_MAX: usize = 1000;

/// Finds the addresses of a host name. It may block.
type Resolve = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Looks up host names for all zones. Clones share everything; the last one to go ends the look-ups.
#[derive(Clone)]
pub struct HostLookup(Arc<Shared>);

struct Shared {
    resolve: Arc<Resolve>,
    slots: Arc<Semaphore>,
    names: Mutex<HashMap<ZoneName, Name>>,
}

/// One name that some zone uses.
struct Name {
    result: Arc<watch::Sender<HostAddresses>>,
    wanted: Arc<Notify>,
    /// Ends the name's task when the name, or the whole lookup, is dropped.
    _task: AbortOnDropHandle<()>,
}

/// What is known of a name.
#[derive(Clone, Default)]
struct HostAddresses {
    /// The result of the last successful look-up, sorted, so that replicas agree.
    addresses: Arc<[IpAddr]>,
    /// When a look-up last ended.
    looked_up: Option<Instant>,
    /// Why the last one failed.
    error: Option<String>,
}

impl HostLookup {
    /// Uses the system's resolver.
    pub fn new() -> Self {
        Self::with(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }

    /// Uses this function, which may block, in place of the system's resolver.
    pub fn with(resolve: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        let slots = Arc::new(Semaphore::new(LOOKUPS_MAX));
        Self(Arc::new(Shared { resolve: Arc::new(resolve), slots, names: Mutex::default() }))
    }

    /// Subscribes to the addresses of a name; the first subscription begins to look it up. Call it on a runtime.
    pub fn subscribe(&self, name: &ZoneName) -> Host {
        let mut names = self.0.lock();
        let known = names.entry(name.clone()).or_insert_with(|| self.0.start(name));
        Host { name: name.clone(), result: known.result.subscribe(), wanted: known.wanted.clone() }
    }

    /// How many names are looked up now.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether no zone uses a name.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for HostLookup {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HostLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostLookup").field("names", &self.len()).finish_non_exhaustive()
    }
}

/// One zone's subscription to a name. The name is dropped with its last subscription.
#[derive(Clone)]
pub struct Host {
    name: ZoneName,
    result: watch::Receiver<HostAddresses>,
    wanted: Arc<Notify>,
}

impl Host {
    /// The addresses found last, in order; none until a look-up has succeeded.
    pub fn addresses(&mut self) -> Arc<[IpAddr]> {
        self.result.borrow_and_update().addresses.clone()
    }

    /// Why the last look-up failed, as a sentence; `None` when it did not.
    pub fn error(&self) -> Option<String> {
        self.result.borrow().error.clone()
    }

    /// Asks for another look-up if the last one ended at least `age` ago. Returns at once.
    pub fn freshen(&self, age: Duration) {
        if self.result.borrow().looked_up.is_some_and(|then| then.elapsed() >= age.max(RETRY)) {
            self.wanted.notify_one();
        }
    }

    /// Returns when a look-up has ended since [`Host::addresses`] was last called.
    pub async fn changed(&mut self) {
        if self.result.changed().await.is_err() {
            // The look-up has been dropped, and this will be: nothing changes any more.
            std::future::pending().await
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl Shared {
    /// Nothing panics while it holds the lock, so the content is whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<ZoneName, Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, name: &ZoneName) -> Name {
        let result = Arc::new(watch::Sender::new(HostAddresses::default()));
        let wanted = Arc::new(Notify::new());
        let task = Task {
            name: name.clone(),
            host: Seed::Host(name.clone()).to_string(),
            result: result.clone(),
            wanted: wanted.clone(),
            resolve: self.resolve.clone(),
            slots: self.slots.clone(),
            home: Arc::downgrade(self),
        };
        Name { result, wanted, _task: AbortOnDropHandle::new(tokio::spawn(task.run())) }
    }
}

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error("the system's resolver has not answered within {LOOKUP_TIMEOUT:?}")]
    TimedOut,
    #[error("it has no address that a node could have")]
    NoAddress,
    #[error(transparent)]
    System(#[from] io::Error),
    #[error(transparent)]
    Panicked(#[from] JoinError),
}

/// Looks up one name on demand, for as long as it has a subscription.
struct Task {
    name: ZoneName,
    /// The name as the system's resolver takes it: without a dot at the end, so that search domains apply.
    host: String,
    result: Arc<watch::Sender<HostAddresses>>,
    wanted: Arc<Notify>,
    resolve: Arc<Resolve>,
    slots: Arc<Semaphore>,
    home: Weak<Shared>,
}

impl Task {
    async fn run(self) {
        while !self.forgotten() {
            self.look_up().await;
            let failed = self.result.borrow().error.is_some();
            tokio::select! {
                () = self.result.closed() => {}
                () = self.wanted.notified() => {}
                () = sleep(RETRY), if failed => {}
            }
        }
    }

    /// Whether the name has no subscription; if so, it is removed. The lock keeps new subscriptions out meanwhile.
    fn forgotten(&self) -> bool {
        let Some(home) = self.home.upgrade() else { return true };
        let mut names = home.lock();
        let forgotten = self.result.receiver_count() == 0;
        if forgotten {
            names.remove(&self.name);
        }
        forgotten
    }

    /// One look-up. When it takes too long, the name counts as failing until the result arrives.
    async fn look_up(&self) {
        let mut job = self.begin();
        let ended = match timeout(LOOKUP_TIMEOUT, &mut job).await {
            Ok(ended) => ended,
            Err(_) => {
                self.publish(Err(LookupError::TimedOut));
                job.await
            }
        };
        self.publish(match ended {
            Ok(Ok(addresses)) if addresses.is_empty() => Err(LookupError::NoAddress),
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(error.into()),
            Err(panicked) => Err(panicked.into()),
        });
    }

    /// Starts a look-up once there is a slot, which it keeps until it has really ended, whether or not a zone still waits.
    fn begin(&self) -> AbortOnDropHandle<io::Result<Arc<[IpAddr]>>> {
        let slots = self.slots.clone();
        let resolve = self.resolve.clone();
        let host = self.host.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            // The semaphore is never closed; if it were, there would be no bound to keep.
            let slot = slots.acquire_owned().await.ok();
            let job: JoinHandle<io::Result<Vec<IpAddr>>> = spawn_blocking(move || {
                let found = resolve(&host);
                drop(slot);
                found
            });
            Ok(usable(job.await.map_err(io::Error::other)??))
        }))
    }

    fn publish(&self, found: Result<Arc<[IpAddr]>, LookupError>) {
        let Self { host, .. } = self;
        self.result.send_modify(|result| {
            result.looked_up = Some(Instant::now());
            match (found, &result.error) {
                (Ok(addresses), error) => {
                    if error.is_some() {
                        info!(%host, "host name resolved again");
                    }
                    result.addresses = addresses;
                    result.error = None;
                }
                (Err(why), error) => {
                    if error.is_none() {
                        warn!(%host, %why, "host name cannot be resolved");
                    }
                    result.error = Some(format!("{host} cannot be resolved: {why}"));
                }
            }
        });
    }
}

/// The addresses that a node can have, each once, in order.
fn usable(found: Vec<IpAddr>) -> Arc<[IpAddr]> {
    let mut addresses: Vec<_> = found.into_iter().map(canonical).filter(|&address| is_publishable(address)).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses.into()
}

#[cfg(test)]
mod tests {
    use std::sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    };

    use super::*;

    fn name(text: &str) -> ZoneName {
        ZoneName::parse(text).unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A resolver that counts its look-ups and gives the scripted answers one after the other, then the last one again
    /// and again.
    fn scripted(script: Vec<Option<Vec<IpAddr>>>) -> (HostLookup, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let lookup = HostLookup::with(move |_| {
            let turn = counter.fetch_add(1, SeqCst).min(script.len() - 1);
            script[turn].clone().ok_or_else(|| io::Error::other("no such host"))
        });
        (lookup, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_looked_up_when_wanted_and_stay_when_look_ups_fail() {
        let found = addresses(&["10.0.0.2", "10.0.0.1", "::ffff:10.0.0.1", "0.0.0.0"]);
        let (lookup, asked) = scripted(vec![None, Some(found), None, Some(addresses(&["10.0.0.3"]))]);
        let mut host = lookup.subscribe(&name("scylla.internal"));
        assert_eq!((host.addresses().len(), host.error()), (0, None));
        host.changed().await;
        assert_eq!(host.error().unwrap(), "scylla.internal cannot be resolved: no such host");
        assert_eq!(host.addresses().len(), 0);
        host.changed().await;
        assert_eq!((&*host.addresses(), host.error()), (&addresses(&["10.0.0.1", "10.0.0.2"])[..], None));

        host.freshen(AGE_MAX);
        sleep(AGE_MAX * 3).await;
        assert_eq!(asked.load(SeqCst), 2, "no zone wanted it, or too early");
        host.freshen(AGE_MAX);
        host.changed().await;
        assert!(host.error().is_some());
        assert_eq!(&*host.addresses(), addresses(&["10.0.0.1", "10.0.0.2"]), "the last good ones stay");
        host.changed().await;
        assert_eq!(&*host.addresses(), addresses(&["10.0.0.3"]));
    }

    #[tokio::test(start_paused = true)]
    async fn zones_share_names_and_forget_them() {
        let (lookup, asked) = scripted(vec![Some(addresses(&["10.0.0.1"]))]);
        let mut followers: Vec<_> = (0..100).map(|_| lookup.subscribe(&name("scylla.internal"))).collect();
        for follower in &mut followers {
            follower.changed().await;
        }
        assert_eq!((asked.load(SeqCst), lookup.len()), (1, 1));
        drop(followers);
        sleep(RETRY).await;
        assert!(lookup.is_empty());
        let mut again = lookup.subscribe(&name("scylla.internal"));
        again.changed().await;
        assert_eq!((asked.load(SeqCst), lookup.len()), (2, 1));
    }

    /// Blocking threads keep the paused clock from running ahead, so this one takes real time; little of it.
    #[tokio::test]
    async fn a_look_up_that_hangs_keeps_its_slot_and_delays_no_other() {
        let (release, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let in_flight = Arc::new(AtomicUsize::new(0));
        let counter = in_flight.clone();
        let lookup = HostLookup::with(move |host| {
            counter.fetch_add(1, SeqCst);
            if host.starts_with("hangs") {
                let _ = gate.lock().unwrap().recv();
            }
            Ok(addresses(&["10.0.0.1"]))
        });
        let mut hanging: Vec<_> =
            (0..=LOOKUPS_MAX).map(|index| lookup.subscribe(&name(&format!("hangs{index}")))).collect();
        while in_flight.load(SeqCst) < LOOKUPS_MAX {
            tokio::task::yield_now().await;
        }
        assert!(hanging.iter_mut().all(|host| host.addresses().is_empty()), "reading never waits");
        hanging.iter().for_each(|host| host.freshen(Duration::ZERO));
        let mut quick = lookup.subscribe(&name("quick"));
        assert!(timeout(Duration::from_millis(50), quick.changed()).await.is_err(), "all slots are taken");
        assert_eq!(in_flight.load(SeqCst), LOOKUPS_MAX);
        drop(release);
        quick.changed().await;
        for host in &mut hanging {
            host.changed().await;
            assert_eq!(&*host.addresses(), addresses(&["10.0.0.1"]));
        }
        assert_eq!(in_flight.load(SeqCst), LOOKUPS_MAX + 2);
    }

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let lookup = HostLookup::new();
        let mut host = lookup.subscribe(&name("localhost"));
        timeout(LOOKUP_TIMEOUT * 2, host.changed()).await.unwrap();
        assert!(host.addresses().iter().all(IpAddr::is_loopback));
    }
}
