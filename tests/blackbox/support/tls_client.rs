//! A client of DNS over TLS that trusts one authority.

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, DEFAULT_VERSIONS, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::{ca::Authority, dns};

/// The name in the server's certificate.
pub const NAME: &str = "dns.test";

/// The configuration of a client that trusts this authority alone.
pub fn client(authority: &Authority) -> ClientConfig {
    client_with(authority, DEFAULT_VERSIONS)
}

fn client_with(authority: &Authority, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    config.with_protocol_versions(versions).unwrap().with_root_certificates(roots).with_no_client_auth()
}

/// `None`: the server's certificate is not valid.
pub fn connect(server: SocketAddr, authority: &Authority) -> Option<StreamOwned<ClientConnection, TcpStream>> {
    connect_with(server, authority, &[])
}

/// The same with these protocols to choose from (ALPN).
pub fn connect_with(
    server: SocketAddr,
    authority: &Authority,
    protocols: &[&str],
) -> Option<StreamOwned<ClientConnection, TcpStream>> {
    let mut config = client(authority);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    open(server, config)
}

/// The same with TLS 1.2 and no later version.
pub fn connect_with_tls_1_2(
    server: SocketAddr,
    authority: &Authority,
) -> Option<StreamOwned<ClientConnection, TcpStream>> {
    open(server, client_with(authority, &[&rustls::version::TLS12]))
}

fn open(server: SocketAddr, config: ClientConfig) -> Option<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from(NAME).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, dns::connect(server));
    stream.conn.complete_io(&mut stream.sock).ok()?;
    Some(stream)
}
