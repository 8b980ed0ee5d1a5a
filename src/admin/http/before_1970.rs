//! HTTP/1.1 while the clock of the day is before 1970: hyper's server then panics for want of a `Date`, whether or not it is
//! to send one.

use std::{future::poll_fn, io, pin::Pin, time::Duration};

use axum::{Router, body::Body, extract::Request, http::request};
use hyper::body::Body as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tower_service::Service as _;

use super::HEAD_OCTETS_MAX;

/// Headers of a request. Browsers send twenty.
const HEADERS_MAX: usize = 64;

/// The reply to what is no HTTP.
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves one request.
///
/// # Errors
/// The client sends no request in time, or goes.
pub(super) async fn serve_connection(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut router: Router,
    head: Duration,
) -> io::Result<()> {
    let Some(request) = timeout(head, read_request(&mut stream)).await?? else {
        return stream.write_all(BAD_REQUEST).await;
    };
    let Ok(response) = router.call(request).await;
    let (response, mut body) = response.into_parts();
    let mut head = format!("HTTP/1.1 {}\r\nconnection: close\r\n", response.status).into_bytes();
    for (name, value) in &response.headers {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    stream.write_all(&head).await?;
    // The end of the connection is that of the body.
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(io::Error::other)?;
        stream.write_all(frame.data_ref().map(AsRef::as_ref).unwrap_or_default()).await?;
    }
    stream.shutdown().await
}

/// The next request; `None`: it is no HTTP, or too long.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Request>> {
    let mut octets = Vec::new();
    while octets.len() < HEAD_OCTETS_MAX {
        if stream.read_buf(&mut octets).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&octets) {
            Ok(httparse::Status::Partial) => {}
            Ok(httparse::Status::Complete(_)) => return Ok(convert(&parsed)),
            Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

fn convert(parsed: &httparse::Request<'_, '_>) -> Option<Request> {
    let mut request = request::Builder::new().method(parsed.method?).uri(parsed.path?);
    let mut has_body = false;
    for header in parsed.headers.iter() {
        let is_length = header.name.eq_ignore_ascii_case("content-length") && header.value != b"0";
        has_body |= is_length || header.name.eq_ignore_ascii_case("transfer-encoding");
        request = request.header(header.name, header.value);
    }
    // No handler reads a body; one that is not empty is refused.
    request.body(if has_body { Body::from("body") } else { Body::empty() }).ok()
}

#[cfg(test)]
mod tests {
    use axum::{middleware, routing::get};
    use proptest::prelude::*;

    use super::{super::refuse_bodies, *};

    async fn reply(request: &str) -> String {
        let router = Router::new().route("/a", get(async || "hello")).layer(middleware::from_fn(refuse_bodies));
        let (mut client, server) = tokio::io::duplex(2 * HEAD_OCTETS_MAX);
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let _ = serve_connection(server, router, Duration::from_secs(5)).await;
        let mut reply = String::new();
        client.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn requests_get_the_replies_that_they_get_later() {
        let good = reply("GET /a HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(good.starts_with("HTTP/1.1 200 OK\r\n") && good.ends_with("content-length: 5\r\n\r\nhello"), "{good}");
        for (request, status) in [
            ("GET /b HTTP/1.1\r\n\r\n", "404"),
            ("POST /a HTTP/1.1\r\n\r\n", "405"),
            ("GET /a HTTP/1.1\r\ncontent-length: 9\r\n\r\n", "413"),
            ("GET /a HTTP/1.1\r\ncontent-length: 0\r\n\r\n", "200"),
            ("\x16\x03\x01\r\n\r\n", "400"),
            (&"a".repeat(HEAD_OCTETS_MAX), "400"),
        ] {
            let reply = reply(request).await;
            assert_eq!(reply.split(' ').nth(1), Some(status), "{reply}");
        }
        assert_eq!(reply("GET /a HTT").await, "");
    }

    proptest! {
        #[test]
        fn any_octets_are_a_request_or_none(mut octets: Vec<u8>, path in "[ -~]{0,40}", header in "[ -~]{0,40}") {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            octets.extend(format!("GET {path} HTTP/1.1\r\n{header}\r\n\r\n").into_bytes());
            for octets in [&octets[..], &octets[octets.len().min(7)..]] {
                let _ = runtime.block_on(read_request(&mut &*octets));
            }
        }
    }
}
