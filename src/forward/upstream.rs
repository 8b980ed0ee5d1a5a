//! One upstream: over UDP, and over TCP after a truncated reply, or over TLS.

use std::{net::SocketAddr, sync::Arc};

use hickory_server::proto::op::ResponseCode;
use rustls::{ClientConfig, pki_types::ServerName};

use super::{
    error::AttemptError,
    query::{Received, UpstreamQuery, WithOpt},
    reply::UpstreamAnswer,
    sockets::{Purpose, Sockets},
    stream::{StreamUpstream, Target},
    udp,
};
use crate::config::Upstream;

/// Asks one upstream.
#[derive(Debug)]
pub(super) struct UpstreamClient {
    /// `None`: over streams alone.
    datagrams: Option<SocketAddr>,
    stream: StreamUpstream,
    sockets: Arc<Sockets>,
}

impl UpstreamClient {
    /// All upstreams share `sockets`.
    pub(super) fn new(upstream: &Upstream, tls: &Arc<ClientConfig>, sockets: &Arc<Sockets>) -> Self {
        let address = upstream.address;
        // The configuration was checked, so the name is one.
        let name = upstream.tls_name.clone().and_then(|name| ServerName::try_from(name).ok());
        let datagrams = upstream.tls_name.is_none().then_some(address);
        let target = Target { address, tls: name.map(|name| (tls.clone(), name)) };
        Self { datagrams, stream: StreamUpstream::new(target), sockets: sockets.clone() }
    }

    /// Asks, and asks again without an OPT if the upstream does not know EDNS. Returns the answer and its octets.
    ///
    /// The caller drops the future at its deadline.
    pub(super) async fn ask(
        &self,
        query: &UpstreamQuery,
        purpose: Purpose,
    ) -> Result<(UpstreamAnswer, Vec<u8>), AttemptError> {
        let mut received = self.exchange(query, WithOpt::Yes, purpose).await?;
        if has_rcode(&received, &[ResponseCode::FormErr, ResponseCode::NotImp]) {
            received = self.exchange(query, WithOpt::No, purpose).await?;
        }
        let Received::Message { message, octets } = received else { return Err(AttemptError::ErrorReply) };
        let answer = UpstreamAnswer::new(message, query.query_type()).ok_or(AttemptError::ErrorReply)?;
        Ok((answer, octets))
    }

    async fn exchange(&self, query: &UpstreamQuery, opt: WithOpt, purpose: Purpose) -> Result<Received, AttemptError> {
        if let Some(address) = self.datagrams {
            let _permit = self.sockets.permit(purpose).await?;
            let received = udp::ask(address, query, opt).await?;
            if !is_truncated(&received) {
                return Ok(received);
            }
        }
        self.stream.ask(query, opt).await
    }
}

fn has_rcode(received: &Received, rcodes: &[ResponseCode]) -> bool {
    matches!(received, Received::Message { message, .. } if rcodes.contains(&message.metadata.response_code))
}

fn is_truncated(received: &Received) -> bool {
    matches!(received, Received::Message { message, .. } if message.metadata.truncation)
}
