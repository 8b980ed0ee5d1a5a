//! Which table a key belongs to, for a key that is in another one.

use super::{
    definitions::Key, diagnostic::Errors, encryption_keys::TLS_KEYS, forward_keys::FORWARD_KEYS, server_keys,
    server_keys::SERVER_KEYS, transfer_keys::TRANSFER_KEYS, zone_keys, zone_keys::ZONE_KEYS,
};

/// Tables and their keys, the common ones first.
const TABLES: [(&str, &[Key]); 9] = [
    ("[server]", &SERVER_KEYS),
    ("a zone, or to [defaults]", &ZONE_KEYS),
    ("[forward]", &FORWARD_KEYS),
    ("[transfer]", &TRANSFER_KEYS),
    ("tcp of [server]", &server_keys::TCP_KEYS),
    ("rate_limit of [server]", &server_keys::RATE_LIMIT_KEYS),
    ("health of a zone", &zone_keys::HEALTH_KEYS),
    ("tls of a zone", &zone_keys::TLS_KEYS),
    ("tls of [server]", &TLS_KEYS),
];

/// Says of each unknown key to which table it belongs, if one knows it.
pub(super) fn name_owners(errors: &mut Errors) {
    for error in errors.list_mut() {
        let Some(key) = error.unknown_key.as_deref() else { continue };
        let owner = TABLES.iter().find(|(_, keys)| keys.iter().any(|known| known.name == key)).map(|(table, _)| table);
        if let (Some(owner), Some((what, _))) = (owner, error.message.split_once("; ")) {
            error.message = format!("{what}; it belongs to {owner}");
        }
    }
}
