//! Files that are replaced, that become pipes, and that lie on a file system that hangs; a clock that is set.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Replaces a file at once, as careful tools do.
pub fn rename_over(path: &Path, content: &str) {
    let next = path.with_extension("next");
    fs::write(&next, content).unwrap();
    fs::rename(next, path).unwrap();
}

/// Replaces a file with a pipe that has no writer, so that opening it to read blocks.
pub fn replace_by_pipe(path: &Path) {
    let pipe = path.with_extension("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::rename(pipe, path).unwrap();
}

/// A directory on a file system that hangs on demand, for a process with [`Self::environment`] and for no other.
pub struct HangingDirectory(PathBuf);

impl HangingDirectory {
    /// A directory of this name in another one. It works like any other at first.
    pub fn new(parent: &Path) -> Self {
        let path = parent.join("hanging");
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What makes calls of a process hang. Needs a C compiler, as Rust itself does.
    pub fn environment(&self) -> [(&'static str, &str); 2] {
        [("LD_PRELOAD", library().to_str().unwrap()), ("HANG_DIRECTORY", self.0.to_str().unwrap())]
    }

    pub fn hang(&self) {
        let _ = fs::remove_file(self.beside("calls"));
        fs::write(self.beside("hangs"), "").unwrap();
    }

    pub fn recover(&self) {
        fs::remove_file(self.beside("hangs")).unwrap();
    }

    /// The calls that have hung since [`Self::hang`]: "open /a/file" for example.
    pub fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.beside("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        self.0.with_extension(suffix)
    }
}

/// A clock of the day that a test sets, for a process with [`Self::environment`] and for no other.
pub struct SettableClock(PathBuf);

impl SettableClock {
    /// A clock that goes right at first; its file is in this directory.
    pub fn new(directory: &Path) -> Self {
        Self(directory.join("clock"))
    }

    /// Sets it so many seconds ahead, or back.
    pub fn set(&self, seconds: i64) {
        rename_over(&self.0, &seconds.to_string());
    }

    /// What makes a process use it. Needs a C compiler, as Rust itself does.
    pub fn environment(&self) -> [(&'static str, &str); 2] {
        static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
        let library = LIBRARY.get_or_init(|| compile("clock"));
        [("LD_PRELOAD", library.to_str().unwrap()), ("CLOCK_OFFSET_FILE", self.0.to_str().unwrap())]
    }
}

/// The library of `hang.c`, compiled once in a run.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| compile("hang"))
}

/// Compiles `NAME.c` to a library.
fn compile(name: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/blackbox/support/{name}.c"));
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let draft = directory.join(format!("{name}-{}", std::process::id()));
    let library = directory.join(format!("{name}.so"));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| OsString::from("cc"));
    let compiled = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&draft).arg(source).status();
    assert!(compiled.expect("a C compiler").success());
    fs::rename(draft, &library).unwrap();
    library
}
