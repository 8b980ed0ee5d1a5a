//! Interoperable server cookies (RFC 9018). A client with a valid one has received a reply of ours at its address.

use std::{hash::Hasher, net::IpAddr};

use siphasher::sip::SipHasher24;

use crate::table::{CookieSecret, CookieSecrets};

/// Octets of a client's cookie and of ours (RFC 7873, 4; RFC 9018, 3).
pub const CLIENT_OCTETS: usize = 8;
pub const SERVER_OCTETS: usize = 16;

/// Version 1 and three reserved octets (RFC 9018, 4.1 and 4.2).
const VERSION: [u8; 4] = [1, 0, 0, 0];

/// How old a cookie may be, and how far in the future, in seconds (RFC 9018, 4.3).
const AGE_MAX: u32 = 3600;
const AHEAD_MAX: u32 = 300;

/// Octets of a server cookie (RFC 7873, 4). Ours have [`SERVER_OCTETS`]; a cookie of another length is another server's.
const FOREIGN_SERVER_OCTETS: std::ops::RangeInclusive<usize> = 8..=32;

/// A COOKIE option of a client (RFC 7873, 4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CookieOption {
    /// The client cookie, to be echoed.
    pub client: [u8; CLIENT_OCTETS],
    /// The server cookie, where its length is that of ours.
    pub server: Option<[u8; SERVER_OCTETS]>,
}

/// The data of a COOKIE option: the client cookie and a new server cookie. `now` is the unix time in seconds.
pub fn make(secrets: &CookieSecrets, option: &CookieOption, client: IpAddr, now: u32) -> [u8; 24] {
    let mut cookie = [0; CLIENT_OCTETS + SERVER_OCTETS];
    cookie[..CLIENT_OCTETS].copy_from_slice(&option.client);
    cookie[CLIENT_OCTETS..].copy_from_slice(&server_cookie(secrets.current, option.client, now, client));
    cookie
}

/// Whether the option has a server cookie of ours that was made for this address and is recent.
pub fn is_valid(secrets: &CookieSecrets, option: &CookieOption, client: IpAddr, now: u32) -> bool {
    let Some(server) = option.server else { return false };
    let [_, _, _, _, a, b, c, d, ..] = server;
    let made = u32::from_be_bytes([a, b, c, d]);
    // The time wraps like a serial (RFC 9018, 4.3).
    let recent = now.wrapping_sub(made) <= AGE_MAX || made.wrapping_sub(now) <= AHEAD_MAX;
    recent && secrets.iter().any(|secret| server_cookie(*secret, option.client, made, client) == server)
}

impl CookieOption {
    /// `None` for lengths that no cookie has (RFC 7873, 5.2.2).
    pub(super) fn read(octets: &[u8]) -> Option<Self> {
        let (client, server) = octets.split_first_chunk()?;
        let well_formed = server.is_empty() || FOREIGN_SERVER_OCTETS.contains(&server.len());
        well_formed.then(|| Self { client: *client, server: server.try_into().ok() })
    }
}

fn server_cookie(secret: CookieSecret, client_cookie: [u8; CLIENT_OCTETS], made: u32, client: IpAddr) -> [u8; 16] {
    let mut cookie = [0; SERVER_OCTETS];
    cookie[..4].copy_from_slice(&VERSION);
    cookie[4..8].copy_from_slice(&made.to_be_bytes());
    let mut hasher = SipHasher24::new_with_key(&secret.0);
    hasher.write(&client_cookie);
    hasher.write(&cookie[..8]);
    match client {
        IpAddr::V4(v4) => hasher.write(&v4.octets()),
        IpAddr::V6(v6) => hasher.write(&v6.octets()),
    }
    cookie[8..].copy_from_slice(&hasher.finish().to_le_bytes());
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn octets<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap())
    }

    fn asked(client: &str, server: Option<&str>) -> CookieOption {
        CookieOption { client: octets(client), server: server.map(octets) }
    }

    fn secrets(hex: &str) -> CookieSecrets {
        CookieSecrets::of(CookieSecret(octets(hex)))
    }

    /// RFC 9018, appendix A.1 and A.4.
    #[test]
    fn cookies_match_the_test_vectors_of_the_rfc() {
        let v4 = "198.51.100.100".parse().unwrap();
        let secret = secrets("e5e973e5a6b2a43f48e7dc849e37bfcf");
        let made = make(&secret, &asked("2464c4abcf10c957", None), v4, 1_559_731_985);
        assert_eq!(made, octets("2464c4abcf10c957010000005cf79f111f8130c3eee29480"));
        let v6 = "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap();
        let secret = secrets("dd3bdf9344b678b185a6f5cb60fca715");
        let shown = asked("22681ab97d52c298", Some("010000005cf7c57926556bd0934c72f8"));
        assert!(is_valid(&secret, &shown, v6, 1_559_741_961));
    }

    #[test]
    fn a_cookie_is_valid_for_its_client_for_an_hour_and_through_a_rollover() {
        let old = secrets(&"1".repeat(32));
        let new = secrets(&"2".repeat(32));
        let client = IpAddr::from([192, 0, 2, 1]);
        let other = IpAddr::from([192, 0, 2, 2]);
        let made = make(&old, &asked("0102030405060708", None), client, 10_000);
        let shown = CookieOption { client: [1, 2, 3, 4, 5, 6, 7, 8], server: Some(made[8..].try_into().unwrap()) };
        assert!(is_valid(&old, &shown, client, 10_000 + AGE_MAX) && is_valid(&old, &shown, client, 10_000 - AHEAD_MAX));
        assert!(
            !is_valid(&old, &shown, client, 10_001 + AGE_MAX) && !is_valid(&old, &shown, client, 9_999 - AHEAD_MAX)
        );
        assert!(!is_valid(&old, &shown, other, 10_000) && !is_valid(&new, &shown, client, 10_000));
        assert!(!is_valid(&old, &CookieOption { client: [0; 8], ..shown }, client, 10_000));
        let both = CookieSecrets { others: vec![old.current], ..new };
        assert!(is_valid(&both, &shown, client, 10_000));
    }

    proptest! {
        #[test]
        fn made_cookies_are_valid_and_guessed_ones_are_not(
            client in any::<[u8; 8]>(), secret in any::<[u8; 16]>(), guess in any::<[u8; 16]>(), now in any::<u32>(), address in any::<u32>(),
        ) {
            let secrets = CookieSecrets::of(CookieSecret(secret));
            let address = IpAddr::V4(address.into());
            let made = make(&secrets, &CookieOption { client, server: None }, address, now);
            let shown = |server| CookieOption { client, server: Some(server) };
            prop_assert!(is_valid(&secrets, &shown(made[8..].try_into().unwrap()), address, now));
            prop_assert!(!is_valid(&secrets, &shown(guess), address, now));
        }
    }
}
