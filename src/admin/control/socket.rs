//! The socket's file: bound where no other server is, and removed with its owner.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net,
    },
    path::{Path, PathBuf},
};

use axum::Router;
use socket2::{Domain, SockAddr, Socket, Type};

use super::ControlError;

/// The owner of the socket and its group may change the server.
pub(super) const SOCKET_MODE: u32 = 0o660;

/// A bound socket. Dropping it removes its file, unless another server has replaced the file.
#[derive(Debug)]
pub struct ControlSocket {
    pub(super) listener: net::UnixListener,
    pub(super) file: SocketFile,
    pub(super) commands: Router,
}

impl ControlSocket {
    /// The same socket with the routes of further commands.
    #[must_use]
    pub fn with_commands(self, commands: Router) -> Self {
        Self { commands, ..self }
    }

    /// Where it is bound.
    pub fn place(&self) -> SocketPlace {
        self.file.0.clone()
    }
}

/// A path, and the socket that was bound there.
#[derive(Clone, Debug)]
pub struct SocketPlace {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketPlace {
    /// Whether the socket's file is still there. It may block. If the system does not say, it is.
    pub fn is_in_place(&self) -> bool {
        match identity(&self.path) {
            Ok(identity) => identity == self.identity,
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }
}

/// Binds the control socket, and replaces one that has no server.
///
/// The directory is created if only its last level is missing. The socket is bound under another name and renamed once
/// its mode is set, so that it never has wider permissions.
///
/// # Errors
/// Another server uses the socket, the path is a file of another kind, or the system forbids it.
pub fn bind(path: &Path) -> Result<ControlSocket, ControlError> {
    if let Some(directory) = path.parent() {
        // If this fails, binding fails with the reason.
        let _ = fs::create_dir(directory);
    }
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => ControlError::Denied(path.to_owned()),
        _ => ControlError::Bind { path: path.to_owned(), source },
    };
    check_free(path, failed)?;
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let listener = net::UnixListener::bind(&draft).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    fs::set_permissions(&draft, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    let identity = identity(&draft).map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)?;
    let file = SocketFile(SocketPlace { path: path.to_owned(), identity });
    Ok(ControlSocket { listener, file, commands: Router::new() })
}

/// The file of a socket that this process bound.
#[derive(Debug)]
pub(super) struct SocketFile(SocketPlace);

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.0.path).is_ok_and(|now| now == self.0.identity) {
            // If it stays, the next server finds that it has no server, and replaces it.
            let _ = fs::remove_file(&self.0.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Checks that a socket may be bound at `path`: there is no file, or a socket without a server.
fn check_free(path: &Path, failed: impl Fn(io::Error) -> ControlError) -> Result<(), ControlError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(ControlError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    let address = SockAddr::unix(path).map_err(&failed)?;
    // Non-blocking: a server that hangs and accepts no connection must not delay this start.
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(&failed)?;
    match socket.connect(&address) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(failed(error)),
        // A server is there, or its queue is full.
        Ok(()) | Err(_) => Err(ControlError::Taken(path.to_owned())),
    }
}
