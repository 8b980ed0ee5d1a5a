//! The admin interface's socket, which a reload may move, open or close.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::JoinMap};

use super::StartError;
use crate::{
    admin::{self, View},
    config::collide,
};

/// The admin interface, which may move or go.
pub(super) struct Admin {
    view: View,
    serving: Option<AdminDoor>,
}

struct AdminDoor {
    wanted: SocketAddr,
    bound: SocketAddr,
    stop: CancellationToken,
}

impl Admin {
    /// Serves nothing yet.
    pub(super) fn new(view: View) -> Self {
        Self { view, serving: None }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.serving.as_ref().map(|serving| serving.bound)
    }

    /// A socket for the wanted address, unless it is served already. `listening` are the addresses that answer DNS now.
    pub(super) fn bind_change(
        &self,
        wanted: Option<SocketAddr>,
        listening: &[SocketAddr],
    ) -> Result<Option<TcpListener>, StartError> {
        let served = self.serving.as_ref().map(|serving| serving.wanted);
        let Some(address) = wanted.filter(|_| wanted != served) else { return Ok(None) };
        let listener = std::net::TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let mut ours = self.address().into_iter().chain(listening.iter().copied());
        listener.map(Some).map_err(|error| {
            if error.kind() == std::io::ErrorKind::AddrInUse
                && let Some(served) = ours.find(|ours| collide(*ours, address))
            {
                return StartError::Overlap { wanted: address, served };
            }
            let sentence = match error.kind() {
                std::io::ErrorKind::AddrInUse => "another program uses this address; stop it or change `admin`".into(),
                std::io::ErrorKind::PermissionDenied => "no permission for this port; choose one above 1023".into(),
                std::io::ErrorKind::AddrNotAvailable => "this host has no such address".into(),
                _ => error.to_string(),
            };
            StartError::Admin { address, sentence }
        })
    }

    /// Serves the new socket and returns the former one's switch, when something changes.
    pub(super) fn replace(
        &mut self,
        listener: Option<TcpListener>,
        wanted: Option<SocketAddr>,
        tasks: &mut JoinMap<String, ()>,
    ) -> Option<CancellationToken> {
        if self.serving.as_ref().map(|serving| serving.wanted) == wanted {
            return None;
        }
        let former = self.serving.take().map(|serving| serving.stop);
        if let (Some(listener), Some(wanted)) = (listener, wanted) {
            let bound = listener.local_addr().unwrap_or(wanted);
            let stop = CancellationToken::new();
            // A name of its own: under the former one's, the map would end the former one before it has drained.
            tasks.spawn(format!("admin on {bound}"), admin::serve(listener, self.view.clone(), stop.clone()));
            self.serving = Some(AdminDoor { wanted, bound, stop });
        }
        former
    }
}
