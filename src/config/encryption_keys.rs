//! The keys of `[server]` for encrypted DNS.

use std::{net::SocketAddr, path::PathBuf};

use toml::Spanned;

use super::{
    Encryption, SecureTransport, collide,
    definitions::{Key, Kind},
    diagnostic::{Errors, SpannedError},
    keys::Keys,
    value::{self, Read, Value},
};

pub(super) const TLS_KEYS: [Key; 2] = [
    Key::new("cert", Kind::Text, "The certificate chain (PEM)."),
    Key::new("key", Kind::Text, "Its private key (PEM)."),
];

/// The addresses of one key.
type List = Spanned<Vec<Spanned<SocketAddr>>>;

#[derive(Default)]
pub(super) struct EncryptionKeys {
    lists: Vec<(SecureTransport, List)>,
    /// The file has the key `tls`, valid or not.
    tls_is_set: bool,
    tls: Option<Spanned<(PathBuf, PathBuf)>>,
}

impl EncryptionKeys {
    pub(super) fn read(keys: &mut Keys<'_>) -> Self {
        let what = "a list of addresses with ports";
        let mut list = |transport: SecureTransport| {
            Some((transport, keys.spanned(transport.key(), |list| value::list(list, what, value::socket_address))?))
        };
        let lists = SecureTransport::ALL.into_iter().filter_map(&mut list).collect();
        Self { lists, tls_is_set: keys.table.contains_key("tls"), tls: keys.spanned("tls", tls) }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = (SecureTransport, &Spanned<SocketAddr>)> {
        self.lists.iter().flat_map(|(transport, list)| list.get_ref().iter().map(|address| (*transport, address)))
    }

    /// Conflicts among these keys, and with the other addresses of the server.
    pub(super) fn errors(&self, listen: &[SocketAddr], admin: Option<SocketAddr>) -> Errors {
        let mut errors = Errors::default();
        for (transport, list) in &self.lists {
            let key = transport.key();
            if list.get_ref().is_empty() {
                let message = format!("{key} is empty; name at least one address with a port, or leave it out");
                errors.push(SpannedError::new(list.span(), message));
            }
            if !self.tls_is_set {
                let message = format!("{key} needs tls = {{ cert = \"...\", key = \"...\" }} in [server]");
                errors.push(SpannedError::missing(list.span(), message));
            }
        }
        if let Some(tls) = &self.tls
            && self.lists.is_empty()
        {
            let message = "nothing uses tls of [server]; add listen_tls, listen_https or listen_quic, or remove it";
            errors.push(SpannedError::missing(tls.span(), message));
        }
        let others = listen.iter().map(|address| ("listen", true, true, *address));
        let mut taken: Vec<_> = others.chain(admin.map(|address| ("admin", true, false, address))).collect();
        for (transport, address) in self.addresses() {
            let key = transport.key();
            let udp = transport.is_datagrams();
            let tcp = !udp;
            let wanted = *address.get_ref();
            let other = taken.iter().find(|(_, other_tcp, other_udp, other)| {
                (tcp && *other_tcp || udp && *other_udp) && collide(*other, wanted)
            });
            if let Some((other_key, .., other)) = other {
                let message = match *other_key {
                    same if same == key && *other == wanted => format!("{wanted} is listed twice"),
                    same if same == key => format!("{wanted} and {other} cannot both be bound; keep one of them"),
                    other_key => format!("{key} and {other_key} cannot both have {wanted}; give one another port"),
                };
                errors.push(SpannedError::new(address.span(), message));
            }
            taken.push((key, tcp, udp, wanted));
        }
        errors
    }

    /// `None` when no encrypted transport has an address.
    pub(super) fn resolve(self) -> Option<Encryption> {
        let listen: Vec<_> = self.addresses().map(|(transport, address)| (transport, *address.get_ref())).collect();
        let (cert, key) = self.tls?.into_inner();
        (!listen.is_empty()).then_some(Encryption { listen, cert, key })
    }
}

/// The files of the server's certificate and private key; both are needed.
fn tls(value: &Value<'_>) -> Read<(PathBuf, PathBuf)> {
    let span = value.span();
    let table = value::table(value.clone(), "a table, tls = { cert = \"...\", key = \"...\" }")?;
    let mut keys = Keys::new(table, "tls of [server]");
    let missing: Vec<_> = TLS_KEYS.iter().map(|key| key.name).filter(|key| !keys.table.contains_key(*key)).collect();
    let cert = keys.get("cert", value::file);
    let key = keys.get("key", value::file);
    let mut errors = keys.finish(&TLS_KEYS, &[]);
    errors.extend(missing.into_iter().map(|key| {
        let what = if key == "cert" { "the PEM file of the certificate" } else { "the PEM file of its private key" };
        SpannedError::missing(span.clone(), format!("tls of [server] needs {key}, {what}"))
    }));
    match (cert, key) {
        (Some(cert), Some(key)) => value::unless_errors((cert, key), errors),
        _ => Err(errors),
    }
}
