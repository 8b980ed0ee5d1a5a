//! The nodes of many clusters, as many as there are addresses: `nodes PORT SIZE`.
//!
//! One socket on the wildcard address is every node at once: which cluster a node belongs to, and which others do,
//! follows from the address that a connection came to. Clusters of SIZE nodes lie in blocks of addresses, the next
//! power of two apart; the nodes have the first SIZE addresses after a block's first. A connection over IPv6 is to the
//! node whose IPv4 address is in the last 32 bits. With `+6` behind SIZE, every node is listed in both families.
//!
//! It is not Python, which would take the core that the questions come from.

use std::{
    env,
    fmt::Write,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
    task::{LocalSet, spawn_local},
};

/// Connections that wait to be accepted: a start asks for all zones at once.
const BACKLOG: i32 = 4096;

/// Octets of a request's head. Those of the server are a tenth of that.
const HEAD_OCTETS_MAX: usize = 2048;

/// The network of nodes in IPv6; the IPv4 address follows.
const NETWORK_V6: [u16; 6] = [0xfd00, 0x7f, 0, 0, 0, 0];

fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let (Some(port), Some(clusters)) =
        (arguments.first().and_then(|port| port.parse().ok()), arguments.get(1).and_then(|size| Clusters::parse(size)))
    else {
        println!("nodes PORT SIZE: the nodes of many clusters; see tests/bench/peers");
        return Ok(());
    };
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, serve(port, Rc::new(clusters)))
}

/// How clusters lie in the addresses.
struct Clusters {
    size: u32,
    both_families: bool,
}

impl Clusters {
    fn parse(size: &str) -> Option<Self> {
        let number = size.strip_suffix("+6");
        Some(Self { size: number.unwrap_or(size).parse().ok()?, both_families: number.is_some() })
    }

    /// The first address of the block of a node's cluster.
    fn block(&self, node: u32) -> u32 {
        node & !((self.size + 1).next_power_of_two() - 1)
    }

    /// What the node at this address answers to the query for the id of its cluster.
    fn identity(&self, node: u32) -> String {
        let id = format!("{:08x}-0000-4000-8000-000000000000", self.block(node));
        format!(r#"{{"Count":1,"Items":[{{"key":{{"S":"raft_group0_id"}},"value":{{"S":"{id}"}}}}],"ScannedCount":1}}"#)
    }

    /// What the node at this address answers to `/localnodes`.
    fn localnodes(&self, node: u32) -> String {
        let first = self.block(node);
        let mut list = String::from("[");
        for node in first + 1..=first + self.size {
            let v4 = Ipv4Addr::from_bits(node);
            // Writing to a string cannot fail.
            let _ = write!(list, "\"{v4}\",");
            if self.both_families {
                let _ = write!(list, "\"{}\",", v6(node));
            }
        }
        list.pop();
        list + "]"
    }
}

fn v6(node: u32) -> Ipv6Addr {
    let [a, b, c, d, e, f] = NETWORK_V6;
    Ipv6Addr::new(a, b, c, d, e, f, (node >> 16) as u16, node as u16)
}

async fn serve(port: u16, clusters: Rc<Clusters>) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    loop {
        let (connection, _) = listener.accept().await?;
        let clusters = clusters.clone();
        // A connection that breaks is the server's to notice.
        spawn_local(async move { answer(connection, &clusters).await.unwrap_or_default() });
    }
}

async fn answer(mut connection: TcpStream, clusters: &Clusters) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let node = match connection.local_addr()?.ip().to_canonical() {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => v6.to_bits() as u32,
    };
    let mut head = Vec::with_capacity(512);
    while head.len() < HEAD_OCTETS_MAX && connection.read_buf(&mut head).await? > 0 {
        // The query for the id has a body.
        let is_query = head.starts_with(b"POST");
        let end: &[u8] = if is_query { b"}}" } else { b"\r\n\r\n" };
        if !head.ends_with(end) {
            continue;
        }
        let body = if is_query {
            clusters.identity(node)
        } else if head.starts_with(b"GET /localnodes") {
            clusters.localnodes(node)
        } else {
            "healthy".to_owned()
        };
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        connection.write_all(reply.as_bytes()).await?;
        head.clear();
    }
    Ok(())
}
