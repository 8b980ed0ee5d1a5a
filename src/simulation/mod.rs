//! A simulated cluster: nodes on loopback addresses that answer like Alternator, and misbehave on demand.
//!
//! The demo and the tests share it. It writes to TCP itself, because it must send slowly, send wrong data, and reset a
//! connection in the middle of a body.
//! Every node of a [`SimulatedCluster`] listens on an address of its own in 127.0.0.0/8 and all of them share one port, as
//! real nodes do. A cluster owns a thread with a small runtime, so its controls are ordinary blocking calls that may
//! be used from any test; dropping it stops everything.

mod faults;
mod identity;
mod listing;
mod node;
mod response;
mod tls;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rand::RngExt;
use tokio::{runtime, sync::oneshot};
use tokio_util::task::AbortOnDropHandle;

use self::{identity::ClusterIdentity, node::serve, response::NodeRecord, tls::ConnectionSecurity};
pub use self::{
    identity::{Authorization, IdentityCounts, Role},
    response::{Content, Delivery, HttpReply},
    tls::NodeCertificate,
};

/// Nodes in one cluster: more than any real one, and few enough for the files that a process may open.
pub const NODES_MAX: usize = 1000;

/// Attempts with other addresses when a port or an address is taken; loopback has millions.
const ATTEMPTS_MAX: usize = 32;

/// How long an address may stay taken after its node has ended, and how often that is looked at.
const RELEASE_MAX: Duration = Duration::from_secs(2);
const RELEASE_PAUSE: Duration = Duration::from_millis(10);

/// What a request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Path {
    /// `GET /localnodes`, whatever its parameters.
    LocalNodes,
    /// `GET /`.
    Health,
    /// `POST /` with the query for the id of the node's cluster.
    Identity,
    /// Anything else.
    Other,
}

/// A request that a node has read.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it asks for.
    pub path: Path,
    /// The target as sent, with its parameters.
    pub target: String,
    /// The `Host` header; empty when there is none.
    pub host: String,
    /// When it was read.
    pub at: Instant,
}

/// Simulated nodes that share a port. Dropping it closes every port and connection.
#[derive(Debug)]
pub struct SimulatedCluster {
    port: u16,
    state: Arc<State>,
    security: ConnectionSecurity,
    handle: runtime::Handle,
    /// Dropping it ends the runtime, before the thread is joined.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SimulatedCluster {
    /// Starts this many nodes (1 to [`NODES_MAX`]) on neighbouring random loopback addresses, and on a port that is free on
    /// all of them.
    ///
    /// # Errors
    /// No free addresses were found, or the thread cannot be started.
    pub fn start(nodes: usize) -> io::Result<Self> {
        Self::start_on(nodes, 0)
    }

    /// The same on this port, or on any that is free when it is 0.
    fn start_on(nodes: usize, port: u16) -> io::Result<Self> {
        if !(1..=NODES_MAX).contains(&nodes) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a cluster has 1 to {NODES_MAX} nodes")));
        }
        let mut outcome = Err(io::ErrorKind::AddrInUse.into());
        for _ in 0..ATTEMPTS_MAX {
            let first = first_address();
            let addresses: Vec<_> = (0..nodes).filter_map(|index| address_above(first, index)).collect();
            outcome = Self::start_at(&addresses, port);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Starts nodes on these addresses, at least one; port 0 means any that is free on the first.
    ///
    /// # Errors
    /// An address is not this machine's, the port is taken on one of them, or the thread cannot be started.
    pub fn start_at(addresses: &[IpAddr], port: u16) -> io::Result<Self> {
        let mut port = port;
        let mut listeners = Vec::with_capacity(addresses.len());
        for &address in addresses {
            let listener = TcpListener::bind(SocketAddr::new(address, port))?;
            port = listener.local_addr()?.port();
            listeners.push((address, listener));
        }
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("simulation".into()).spawn(move || {
            // The sender is only ever dropped: either way this is the end.
            let _ = runtime.block_on(stopped);
        })?;
        let id = addresses.first().and_then(|&first| ClusterIdentity::default_id(first, port));
        let state = Arc::new(State { identity: Mutex::new(ClusterIdentity::with_id(id)), ..State::default() });
        let security = ConnectionSecurity::default();
        let cluster = Self { port, state, security, handle, stop: Some(stop), thread: Some(thread) };
        for (address, listener) in listeners {
            cluster.run(address, listener)?;
        }
        Ok(cluster)
    }

    /// The port of every node.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// All nodes, running or stopped, in order of their addresses.
    pub fn nodes(&self) -> Vec<IpAddr> {
        self.state.lock().keys().copied().collect()
    }

    /// The running nodes, in order of their addresses. A healthy node lists these.
    pub fn running(&self) -> Vec<IpAddr> {
        self.state.running()
    }

    /// The node with this index, in order of addresses.
    ///
    /// # Panics
    /// When there are fewer nodes.
    pub fn node(&self, index: usize) -> IpAddr {
        self.nodes()[index]
    }

    /// Closes a node's port and connections, and returns when they are closed. Its peers no longer list it. A stopped node
    /// stays stopped.
    pub fn stop(&self, node: IpAddr) {
        if let Some(record) = self.state.lock().get_mut(&node) {
            record.placement.announced = false;
        }
        self.close(node);
    }

    fn close(&self, node: IpAddr) {
        let running = self.state.lock().get_mut(&node).and_then(|node| node.running.take());
        if let Some(running) = running {
            running.end();
        }
    }

    /// Opens the port of a stopped node again. Does nothing for a running one.
    ///
    /// # Errors
    /// Another process has bound the port meanwhile, or the address is not this machine's.
    pub fn restart(&self, node: IpAddr) -> io::Result<()> {
        if self.running().contains(&node) {
            return Ok(());
        }
        self.run(node, bind_soon(SocketAddr::new(node, self.port))?)
    }

    /// Adds a node on the next free address above the highest, and starts it.
    ///
    /// # Errors
    /// No address above was free, or the highest is no IPv4 address.
    pub fn add(&self) -> io::Result<IpAddr> {
        let highest = self.nodes().into_iter().rfind(IpAddr::is_ipv4).unwrap_or_else(first_address);
        let mut outcome = Err(io::ErrorKind::AddrInUse.into());
        for distance in 1..=ATTEMPTS_MAX {
            let Some(address) = address_above(highest, distance) else { break };
            outcome = self.add_at(address).map(|()| address);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Adds a node on this address, and starts it.
    ///
    /// # Errors
    /// The port is taken there, or the address is not this machine's.
    pub fn add_at(&self, address: IpAddr) -> io::Result<()> {
        self.restart(address)
    }

    /// Stops a node and forgets it, its log included.
    pub fn remove(&self, node: IpAddr) {
        self.stop(node);
        self.state.lock().remove(&node);
        self.state.identity().forget(node);
    }

    /// Adds a node, then removes another, like a rolling migration.
    ///
    /// # Errors
    /// No address was free.
    pub fn replace(&self, node: IpAddr) -> io::Result<IpAddr> {
        let newcomer = self.add()?;
        self.remove(node);
        Ok(newcomer)
    }

    /// Makes a node list only itself, like one that sees no peer.
    pub fn isolate(&self, node: IpAddr) {
        self.say(node, Path::LocalNodes, Content::Isolated);
    }

    /// Sets what a node answers to requests for `path` from now on. An unknown node is ignored.
    pub fn say(&self, node: IpAddr, path: Path, content: Content) {
        if let Some(node) = self.state.lock().get_mut(&node) {
            node.content.insert(path, content);
        }
    }

    /// Sets how a node's answers to requests for `path` are delivered from now on. An unknown node is ignored.
    pub fn deliver(&self, node: IpAddr, path: Path, delivery: Delivery) {
        if let Some(node) = self.state.lock().get_mut(&node) {
            node.delivery.insert(path, delivery);
        }
    }

    /// Makes a node answer normally again, on every path.
    pub fn heal(&self, node: IpAddr) {
        if let Some(node) = self.state.lock().get_mut(&node) {
            node.content.clear();
            node.delivery.clear();
        }
    }

    /// Makes all nodes use TLS on connections that they accept from now on; `None`: plain TCP.
    pub fn encrypt(&self, identity: Option<NodeCertificate>) {
        self.security.set(identity);
    }

    /// The latest requests that a node has read, oldest first; a few thousand at most.
    pub fn requests(&self, node: IpAddr) -> Vec<Request> {
        self.state.lock().get(&node).map(|node| node.log.iter().cloned().collect()).unwrap_or_default()
    }

    /// How many requests for `path` a node has read since it was added.
    pub fn count(&self, node: IpAddr, path: Path) -> u64 {
        self.state.lock().get(&node).map_or(0, |node| node.counts.get(&path).copied().unwrap_or(0))
    }

    /// How many requests for `path` all nodes together have read.
    pub fn total(&self, path: Path) -> u64 {
        self.state.lock().values().map(|node| node.counts.get(&path).copied().unwrap_or(0)).sum()
    }

    /// How many connections a node has accepted since it was added.
    pub fn connections(&self, node: IpAddr) -> u64 {
        self.state.lock().get(&node).map_or(0, |node| node.connections)
    }

    /// Serves on a listener until the node is stopped.
    fn run(&self, address: IpAddr, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let (alive, ended) = mpsc::channel();
        let task = self.handle.spawn(serve(address, listener, self.state.clone(), self.security.clone(), alive));
        let running = Running { task: AbortOnDropHandle::new(task), ended };
        let mut nodes = self.state.lock();
        let record = nodes.entry(address).or_default();
        record.running = Some(running);
        record.placement.announced = false;
        Ok(())
    }
}

impl Drop for SimulatedCluster {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has already been printed; a second one here would hide it.
            let _ = thread.join();
        }
    }
}

/// The state that the controls write and the nodes read.
#[derive(Debug, Default)]
struct State {
    nodes: Mutex<BTreeMap<IpAddr, NodeRecord<Running>>>,
    identity: Mutex<ClusterIdentity>,
}

impl State {
    /// No code panics while it holds the lock, so the content is consistent.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<IpAddr, NodeRecord<Running>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn identity(&self) -> MutexGuard<'_, ClusterIdentity> {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Vec<IpAddr> {
        self.lock().iter().filter(|(_, node)| node.running.is_some()).map(|(&address, _)| address).collect()
    }
}

/// A node's task, which owns its port and its connections.
#[derive(Debug)]
struct Running {
    task: AbortOnDropHandle<()>,
    /// Its sender is dropped with the task.
    ended: mpsc::Receiver<()>,
}

impl Running {
    /// Returns when port and connections are closed.
    fn end(self) {
        drop(self.task);
        // Nothing is ever sent: this waits until the sender is dropped.
        let _ = self.ended.recv();
    }
}

/// Binds an address that another node, or a connection of it, may have had until now: on a busy machine the kernel may
/// need a moment to release it.
fn bind_soon(address: SocketAddr) -> io::Result<TcpListener> {
    let start = Instant::now();
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < RELEASE_MAX => {
                std::thread::sleep(RELEASE_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// The first address of a new cluster: 127.x.y.1, with space above it for [`NODES_MAX`] more.
fn first_address() -> IpAddr {
    let mut rng = rand::rng();
    Ipv4Addr::new(127, rng.random_range(1..=250), rng.random_range(0..=250), 1).into()
}

/// The address at this distance above; `None` beyond 127.0.0.0/8 or for IPv6, which has one loopback address only.
fn address_above(address: IpAddr, distance: usize) -> Option<IpAddr> {
    let IpAddr::V4(v4) = address else { return None };
    let above = Ipv4Addr::from_bits(v4.to_bits().checked_add(u32::try_from(distance).ok()?)?);
    (above.is_loopback() && above.to_bits() & 0x00ff_ffff != 0x00ff_ffff).then_some(above.into())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        net::TcpStream,
        time::Duration,
    };

    use super::*;

    /// Sends a request and reads until the node closes, or sends nothing for a while.
    fn ask(cluster: &SimulatedCluster, node: IpAddr, request: &str) -> String {
        let mut stream = TcpStream::connect((node, cluster.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while answer.len() < 1 << 20 {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(length) => answer.extend_from_slice(&piece[..length]),
            }
        }
        String::from_utf8(answer).unwrap()
    }

    fn get(cluster: &SimulatedCluster, node: IpAddr, target: &str) -> String {
        ask(cluster, node, &format!("GET {target} HTTP/1.1\r\nHost: {node}\r\nConnection: close\r\n\r\n"))
    }

    #[test]
    fn nodes_list_running_nodes_and_are_healthy() {
        let cluster = SimulatedCluster::start(2).unwrap();
        let (first, second) = (cluster.node(0), cluster.node(1));
        let answer = get(&cluster, first, "/localnodes?dc=datacenter1");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("Content-Type: application/json\r\n"), "{answer}");
        assert!(answer.contains(&format!("\"{first}\"")) && answer.contains(&format!("\"{second}\"")), "{answer}");
        assert!(get(&cluster, second, "/").ends_with(&format!("\r\n\r\nhealthy: {second}")));
        assert!(get(&cluster, second, "/nothing").starts_with("HTTP/1.1 404 Not Found\r\n"));
        cluster.isolate(first);
        assert!(get(&cluster, first, "/localnodes").ends_with(&format!("\r\n\r\n[\"{first}\"]")));
        assert_eq!((cluster.count(first, Path::LocalNodes), cluster.total(Path::LocalNodes)), (2, 2));
        assert_eq!(cluster.requests(first)[0].target, "/localnodes?dc=datacenter1");
        assert_eq!(cluster.requests(first)[0].host, first.to_string());
    }

    #[test]
    fn connections_are_kept_if_the_client_asks_for_it() {
        let cluster = SimulatedCluster::start(1).unwrap();
        let node = cluster.node(0);
        let two = ask(&cluster, node, "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n");
        assert!(two.contains("healthy: a") && two.contains("healthy: b"), "{two}");
        assert_eq!(cluster.connections(node), 1);
        let old = ask(&cluster, node, "GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n");
        assert_eq!(old.matches("healthy: ").count(), 1, "{old}");
        let kept = ask(&cluster, node, "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET / HTTP/1.0\r\n\r\n");
        assert_eq!(kept.matches("healthy: ").count(), 2, "{kept}");
    }

    #[test]
    fn a_stopped_node_refuses_and_is_not_listed() {
        let cluster = SimulatedCluster::start(2).unwrap();
        let (first, second) = (cluster.node(0), cluster.node(1));
        let mut open = TcpStream::connect((first, cluster.port())).unwrap();
        get(&cluster, first, "/");
        cluster.stop(first);
        assert!(matches!(open.read(&mut [0; 1]), Ok(0) | Err(_)), "its connections are cut");
        let refusal = TcpStream::connect((first, cluster.port())).unwrap_err();
        assert_eq!(refusal.kind(), ErrorKind::ConnectionRefused);
        assert!(get(&cluster, second, "/localnodes").ends_with(&format!("[\"{second}\"]")));
        cluster.restart(first).unwrap();
        assert!(get(&cluster, first, "/localnodes").contains(&first.to_string()));
        let third = cluster.replace(second).unwrap();
        assert_eq!(cluster.running(), [first, third]);
    }

    #[test]
    fn answers_break_in_the_way_that_was_set() {
        let cluster = SimulatedCluster::start(1).unwrap();
        let node = cluster.node(0);
        let answer = |delivery| {
            cluster.deliver(node, Path::LocalNodes, delivery);
            get(&cluster, node, "/localnodes")
        };
        let list = format!("[\"{node}\"]");
        assert_eq!(answer(Delivery::Hang), "");
        assert_eq!(answer(Delivery::Close), "");
        assert_eq!(answer(Delivery::Trickle(Duration::from_millis(400))), "", "not one octet yet");
        assert!(answer(Delivery::Trickle(Duration::ZERO)).ends_with(&list));
        assert_eq!(answer(Delivery::Verbatim(b"\x15\x03\x01".to_vec())), "\x15\x03\x01");
        assert!(answer(Delivery::Delayed(Duration::from_millis(20))).ends_with(&list));
        assert!(answer(Delivery::Drip(Duration::from_millis(1))).ends_with(&list));
        assert!(answer(Delivery::Chunked).ends_with("\r\n0\r\n\r\n"));
        assert!(answer(Delivery::Short).contains(&format!("Content-Length: {}\r\n", list.len() + 10)));
        assert!(!answer(Delivery::ResetMidBody).contains(&list));
        assert!(answer(Delivery::Endless).len() >= 1 << 20);
        cluster.heal(node);
        assert!(get(&cluster, node, "/localnodes").ends_with(&list));
        cluster.say(node, Path::LocalNodes, Content::Reply(HttpReply::status(302).header("Location", "/").body("no")));
        let moved = get(&cluster, node, "/localnodes");
        assert!(moved.starts_with("HTTP/1.1 302 ") && moved.contains("\r\nLocation: /\r\n"), "{moved}");
    }

    /// The indices of the nodes that a node lists to a request with these parameters, in order.
    fn listed(cluster: &SimulatedCluster, index: usize, parameters: &str) -> Vec<usize> {
        let answer = get(cluster, cluster.node(index), &format!("/localnodes{parameters}"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let list: Vec<IpAddr> = serde_json::from_str(body).unwrap();
        cluster.nodes().iter().enumerate().filter(|(_, node)| list.contains(node)).map(|(index, _)| index).collect()
    }

    #[test]
    fn a_list_has_the_nodes_of_the_requested_datacenter_and_rack() {
        let cluster = SimulatedCluster::start_in(&[("a", "1"), ("a", "2"), ("b & c", "1"), ("b & c", "2")]).unwrap();
        assert_eq!(listed(&cluster, 0, ""), [0, 1], "its own datacenter");
        assert_eq!(listed(&cluster, 0, "?dc=&rack="), [0, 1]);
        assert_eq!(listed(&cluster, 0, "?dc=b%20%26%20c"), [2, 3]);
        assert_eq!(listed(&cluster, 3, "?rack=1"), [2], "a rack of its own datacenter");
        assert_eq!(listed(&cluster, 3, "?rack=1&dc=a"), [0]);
        assert_eq!(listed(&cluster, 0, "?dc=nowhere"), [0; 0]);
        assert_eq!(listed(&cluster, 0, "?rack=nowhere"), [0; 0]);
        cluster.ignore_parameters(cluster.node(0), true);
        assert_eq!(listed(&cluster, 0, "?dc=nowhere&rack=1"), [0, 1]);
        cluster.isolate(cluster.node(1));
        assert_eq!(listed(&cluster, 1, "?rack=2"), [1]);
        assert_eq!(listed(&cluster, 1, "?dc=b%20%26%20c"), [0; 0], "an isolated node lists only itself");
        cluster.place(cluster.node(2), "a", "3");
        assert_eq!(listed(&cluster, 0, ""), [0, 1, 2]);
    }

    #[test]
    fn nodes_list_only_their_own_side_of_a_split() {
        let cluster = SimulatedCluster::start(5).unwrap();
        let nodes = cluster.nodes();
        cluster.split(&[&nodes[..2], &nodes[2..4]]);
        cluster.stop(nodes[1]);
        let newcomer = cluster.add().unwrap();
        assert_eq!(cluster.node(5), newcomer);
        assert_eq!((listed(&cluster, 0, ""), listed(&cluster, 3, "")), (vec![0], vec![2, 3]));
        assert_eq!((listed(&cluster, 4, ""), listed(&cluster, 5, "")), (vec![4, 5], vec![4, 5]));
        cluster.heal_split();
        assert_eq!(listed(&cluster, 0, ""), [0, 2, 3, 4, 5]);
    }

    #[test]
    fn nodes_that_crash_or_join_are_listed_and_refuse() {
        let cluster = SimulatedCluster::start(3).unwrap();
        let refuses = |node| TcpStream::connect((node, cluster.port())).is_err();
        let crashed = cluster.node(1);
        cluster.crash(crashed);
        assert!(refuses(crashed) && cluster.running().len() == 2);
        assert_eq!(listed(&cluster, 0, ""), [0, 1, 2]);
        cluster.stop(crashed);
        assert_eq!(listed(&cluster, 0, ""), [0, 2], "its peers have noticed");
        let joining = address_above(cluster.node(2), 1).unwrap();
        cluster.announce(joining);
        cluster.isolate(joining);
        assert!(refuses(joining));
        assert_eq!(listed(&cluster, 0, ""), [0, 2, 3]);
        cluster.restart(joining).unwrap();
        assert_eq!((listed(&cluster, 0, ""), listed(&cluster, 3, "")), (vec![0, 2, 3], vec![3]));
        cluster.stop(joining);
        assert_eq!(listed(&cluster, 0, ""), [0, 2]);
    }

    #[test]
    fn an_address_can_move_to_another_cluster_on_one_port() {
        let losing = SimulatedCluster::start(2).unwrap();
        let winning = losing.start_beside(1).unwrap();
        assert_eq!(winning.port(), losing.port());
        let address = losing.node(0);
        winning.take_over(&losing, address).unwrap();
        assert_eq!((losing.nodes().len(), winning.nodes().len()), (1, 2));
        assert!(get(&winning, address, "/localnodes").contains(&winning.node(0).to_string()));
        assert_eq!(listed(&losing, 0, ""), [0]);
        winning.overload(address, Duration::from_millis(20));
        assert!(get(&winning, address, "/").contains("healthy"));
    }

    #[test]
    fn a_cluster_of_the_largest_size_fits_above_its_first_address() {
        for _ in 0..1000 {
            assert!(address_above(first_address(), NODES_MAX).is_some());
        }
        assert_eq!(address_above("::1".parse().unwrap(), 1), None);
    }
}
