//! HTTP requests that carry a DNS message (RFC 8484, 4.1): where the message is, and why there is none.

use std::pin::Pin;

use data_encoding::BASE64URL_NOPAD;
use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    body::{Body, Incoming},
    header::CONTENT_TYPE,
};

/// The path of the resolver, as in RFC 8484's examples and in other servers.
const PATH: &str = "/dns-query";

/// The media type of a DNS message (RFC 8484, 6).
pub(super) const MEDIA_TYPE: &str = "application/dns-message";

/// Octets of a message in a request. A query with all options has less than a thousand.
pub(super) const BODY_OCTETS_MAX: usize = 4096;

/// Why a request gets no DNS message: the status and a sentence.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("DNS queries are answered at /dns-query only")]
    Path,
    #[error("use GET or POST")]
    Method,
    #[error("GET needs the parameter dns, a DNS message in base64url without padding (RFC 8484, section 4.1)")]
    Parameter,
    #[error("a DNS message in a query has at most {BODY_OCTETS_MAX} octets")]
    ParameterTooLong,
    #[error("POST needs a body of type application/dns-message")]
    MediaType,
    #[error("a DNS message in a request has at most {BODY_OCTETS_MAX} octets")]
    BodyTooLong,
    #[error("the body was not complete in time")]
    TooSlow,
    #[error("the body was not complete")]
    Incomplete,
    #[error("this is not a DNS query")]
    NoReply,
    #[error("the server has no answer now; ask again")]
    Unavailable,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ParameterTooLong => StatusCode::URI_TOO_LONG,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Parameter | Self::Incomplete | Self::NoReply => StatusCode::BAD_REQUEST,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// The message of a GET request; `None`: it is the body of a POST request.
pub(super) fn question(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Option<Vec<u8>>, Refusal> {
    if uri.path() != PATH {
        return Err(Refusal::Path);
    }
    match *method {
        Method::GET => Ok(Some(parameter(uri.query().unwrap_or_default())?)),
        Method::POST if is_message(headers) => Ok(None),
        Method::POST => Err(Refusal::MediaType),
        _ => Err(Refusal::Method),
    }
}

/// The DNS message in the query of a URI; `None`: there is none. Public so that a fuzzer can call it.
#[doc(hidden)]
pub fn query_parameter(query: &str) -> Option<Vec<u8>> {
    parameter(query).ok()
}

fn parameter(query: &str) -> Result<Vec<u8>, Refusal> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    let (_, text) = parameters.find(|(name, _)| name == "dns").ok_or(Refusal::Parameter)?;
    if text.len() > BASE64URL_NOPAD.encode_len(BODY_OCTETS_MAX) {
        return Err(Refusal::ParameterTooLong);
    }
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| Refusal::Parameter)
}

/// Whether the body is a DNS message; parameters of the media type say nothing about it.
fn is_message(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.map(|value| value.split_once(';').map_or(value, |(media_type, _)| media_type));
    media_type.is_some_and(|media_type| media_type.trim().eq_ignore_ascii_case(MEDIA_TYPE))
}

/// Reads a body.
pub(super) async fn read_body(mut body: Incoming) -> Result<Vec<u8>, Refusal> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > BODY_OCTETS_MAX {
        return Err(Refusal::BodyTooLong);
    }
    let mut octets = Vec::with_capacity(announced);
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        // Trailers say nothing about the message.
        let Ok(data) = frame.map_err(|_| Refusal::Incomplete)?.into_data() else { continue };
        if octets.len() + data.len() > BODY_OCTETS_MAX {
            return Err(Refusal::BodyTooLong);
        }
        octets.extend_from_slice(&data);
    }
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(uri: &str) -> Result<Option<Vec<u8>>, Refusal> {
        question(&Method::GET, &uri.parse().unwrap(), &HeaderMap::new())
    }

    fn post(media_type: &str) -> Result<Option<Vec<u8>>, Refusal> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, media_type.parse().unwrap())]);
        question(&Method::POST, &"/dns-query?dns=AAAA".parse().unwrap(), &headers)
    }

    #[test]
    fn get_has_the_message_in_its_query() {
        assert_eq!(get("/dns-query?dns=AAEC"), Ok(Some(vec![0, 1, 2])));
        assert_eq!(get("/dns-query?ct&x=1&dns=-_8"), Ok(Some(vec![0xFB, 0xFF])));
        assert_eq!(get("/dns-query?dns=%2D%5F8"), Ok(Some(vec![0xFB, 0xFF])));
        assert_eq!(get("/dns-query?dns="), Ok(Some(vec![])));
        for query in ["", "?", "?DNS=AAEC", "?dns=AAE=", "?dns=AAF", "?dns=A", "?dns=+/8", "?dns=%FF"] {
            assert_eq!(get(&format!("/dns-query{query}")), Err(Refusal::Parameter), "{query}");
        }
        let longest = BASE64URL_NOPAD.encode(&[0; BODY_OCTETS_MAX]);
        assert_eq!(get(&format!("/dns-query?dns={longest}")), Ok(Some(vec![0; BODY_OCTETS_MAX])));
        assert_eq!(get(&format!("/dns-query?dns={longest}AA")), Err(Refusal::ParameterTooLong));
    }

    #[test]
    fn post_has_the_message_in_its_body() {
        assert_eq!(post("application/dns-message"), Ok(None));
        assert_eq!(post("Application/DNS-Message; x=y"), Ok(None));
        for other in ["", "application/dns-json", "application/dns-messages", "text/plain"] {
            assert_eq!(post(other), Err(Refusal::MediaType), "{other}");
        }
        assert_eq!(question(&Method::POST, &"/dns-query".parse().unwrap(), &HeaderMap::new()), Err(Refusal::MediaType));
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        for path in ["/", "/dns-query/", "/dns-querys", "/DNS-QUERY", "/x/dns-query"] {
            assert_eq!(get(&format!("{path}?dns=AAEC")), Err(Refusal::Path), "{path}");
        }
        for method in [Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let refused = question(&method, &"/dns-query?dns=AAEC".parse().unwrap(), &HeaderMap::new());
            assert_eq!(refused, Err(Refusal::Method), "{method}");
        }
    }

    proptest! {
        #[test]
        fn every_message_can_be_asked_for(message in prop::collection::vec(any::<u8>(), 0..600)) {
            let query = format!("dns={}", BASE64URL_NOPAD.encode(&message));
            prop_assert_eq!(query_parameter(&query), Some(message));
        }

        #[test]
        fn no_query_panics(query in "\\PC*|([a-z]{0,3}=[ -~]{0,20}&?){0,4}|dns=[A-Za-z0-9_%=+-]{0,40}") {
            if let Some(message) = query_parameter(&query) {
                prop_assert!(message.len() <= BODY_OCTETS_MAX);
            }
        }
    }
}
