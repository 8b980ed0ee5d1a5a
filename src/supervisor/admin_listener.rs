//! The admin interface's socket, which a reload may move, open or close.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::JoinMap};

use super::{
    error::{AdminRefusal, StartError},
    listeners::Listeners,
};
use crate::{
    admin::{self, AdminState, ServingCriteria},
    config::collide,
    server::tcp_listener,
    systemd::sockets::{KeptSockets, SocketName, SocketStore, SocketUse},
    types::ZoneName,
};

/// Connections that wait to be accepted. With the standard library's 128, a burst of silent ones makes the next one's SYN
/// wait for a second.
const BACKLOG: i32 = 1024;

/// The admin interface, which may move or go.
pub(super) struct Admin {
    admin: AdminState,
    serving: Option<AdminListener>,
    store: SocketStore,
}

struct AdminListener {
    wanted: SocketAddr,
    bound: SocketAddr,
    /// A copy of the socket, to change its options: its port is shared while it moves to the wildcard of its address, or back.
    /// `None`: the system had no descriptor for it.
    socket: Option<OwnedFd>,
    stop: CancellationToken,
}

/// A change of the admin interface that is not made yet.
#[derive(Debug)]
pub(super) enum PreparedAdmin {
    /// It stays where it is, or switched off.
    Unchanged,
    /// It is switched off.
    Off,
    /// It moves to a socket that is bound.
    Bound {
        /// As the file writes it.
        wanted: SocketAddr,
        listener: TcpListener,
        /// systemd has kept it from an earlier process.
        is_kept: bool,
    },
}

impl Admin {
    /// Serves nothing yet.
    pub(super) fn new(admin: AdminState, store: SocketStore) -> Self {
        Self { admin, serving: None, store }
    }

    /// What the interface reads; commands read it too.
    pub(super) fn state(&self) -> AdminState {
        self.admin.clone()
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.serving.as_ref().map(|serving| serving.bound)
    }

    /// What `/serving` requires from now on.
    pub(super) fn require(&self, criteria: ServingCriteria) {
        self.admin.serving.require(criteria);
    }

    /// The names under which the pages answer from now on.
    pub(super) fn allow_hosts(&self, names: &[ZoneName]) {
        self.admin.hosts.replace(names.to_vec());
    }

    /// Binds the wanted address, unless it is served already or its socket was kept. `listening` answer DNS now.
    pub(super) fn prepare(
        &self,
        wanted: Option<SocketAddr>,
        listening: &Listeners,
    ) -> Result<PreparedAdmin, StartError> {
        if self.serving.as_ref().map(|serving| serving.wanted) == wanted {
            return Ok(PreparedAdmin::Unchanged);
        }
        let Some(wanted) = wanted else { return Ok(PreparedAdmin::Off) };
        let kept = kept(wanted, listening.kept());
        let is_kept = matches!(&kept, Ok(Some(_)));
        match kept.and_then(|kept| kept.map_or_else(|| self.bind(wanted), Ok)) {
            Ok(listener) => Ok(PreparedAdmin::Bound { wanted, listener, is_kept }),
            Err(error) => Err(self.refusal(wanted, &listening.all_addresses(), &error)),
        }
    }

    /// Binds an address, also one that collides with the one that is served, which is about to be closed.
    fn bind(&self, wanted: SocketAddr) -> io::Result<TcpListener> {
        let closing = self.serving.as_ref().filter(|served| served.bound != wanted && collide(served.bound, wanted));
        let Some(socket) = closing.and_then(|served| served.socket.as_ref()) else { return bind(wanted, false) };
        SockRef::from(socket).set_reuse_port(true)?;
        let bound = bind(wanted, true);
        // No other program may bind the port after that.
        SockRef::from(socket).set_reuse_port(false)?;
        bound
    }

    fn refusal(&self, wanted: SocketAddr, listening: &[SocketAddr], error: &io::Error) -> StartError {
        let mut ours = self.address().into_iter().chain(listening.iter().copied());
        if error.kind() == io::ErrorKind::AddrInUse
            && let Some(served) = ours.find(|ours| collide(*ours, wanted))
        {
            return StartError::Overlap { wanted, served };
        }
        let reason = match error.kind() {
            io::ErrorKind::AddrInUse => AdminRefusal::InUse,
            io::ErrorKind::PermissionDenied => AdminRefusal::Denied,
            io::ErrorKind::AddrNotAvailable => AdminRefusal::NotLocal,
            _ => AdminRefusal::Other(error.to_string()),
        };
        StartError::Admin { address: wanted, reason }
    }

    /// Serves the new socket, and lets the former one drain.
    pub(super) fn commit(&mut self, prepared: PreparedAdmin, tasks: &mut JoinMap<String, ()>) {
        let serving = match prepared {
            PreparedAdmin::Unchanged => return,
            PreparedAdmin::Off => None,
            PreparedAdmin::Bound { wanted, listener, is_kept } => {
                let bound = listener.local_addr().unwrap_or(wanted);
                if !is_kept {
                    self.store.keep(name(bound), listener.as_fd());
                }
                let socket = listener.as_fd().try_clone_to_owned().ok();
                let stop = CancellationToken::new();
                // A name of its own: under the former one's, the map would abort the former one before it has drained.
                tasks.spawn(format!("admin on {bound}"), admin::serve(listener, self.admin.clone(), stop.clone()));
                Some(AdminListener { wanted, bound, socket, stop })
            }
        };
        if let Some(former) = std::mem::replace(&mut self.serving, serving) {
            let removal = self.store.remove(vec![name(former.bound).to_string()]);
            tasks.spawn(format!("end of admin on {}", former.bound), async move {
                removal.done().await;
                // Before the other one, so that no connection arrives that no task accepts.
                drop(former.socket);
                former.stop.cancel();
            });
        }
    }
}

fn name(address: SocketAddr) -> SocketName {
    SocketName { usage: SocketUse::Admin, address }
}

fn kept(address: SocketAddr, kept: &KeptSockets) -> io::Result<Option<TcpListener>> {
    tcp_listener(kept, name(address))?.map(TcpListener::from_std).transpose()
}

/// Binds an address as the standard library does, with a longer queue.
fn bind(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec().nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(false)?;
    TcpListener::from_std(socket.into())
}
