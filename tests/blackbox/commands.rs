//! The commands that end by themselves, and the demo.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write as _},
    process::{Child, Stdio},
    time::Duration,
};

use alternator_dns::simulation::SimulatedCluster;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    daemon::{Daemon, command, config, scratch, zone, zone_with},
    dns::{self, Question},
    files, wait,
};

#[test]
fn check_prints_a_summary_of_a_good_file() {
    let directory = scratch("check");
    let file = directory.join("config.toml");
    std::fs::write(&file, "[zones.\"a.example\"]\nseeds = [\"10.0.0.1\", \"node.internal\"]\n").unwrap();
    let output = command(&["check", "--config"]).arg(&file).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout.contains("1 zone with 2 seeds") && stdout.contains("a.example. port 8000 ttl 4s"), "{stdout}");
    assert!(stdout.contains("load    at most 1.6 requests a second to a node"), "{stdout}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_command_whose_output_is_not_read_succeeds() {
    let directory = scratch("unread");
    let file = directory.join("config.toml");
    for (content, expected) in [("[zones.\"a.example\"]\nseeds = [\"10.0.0.1\"]\n", 0), ("", 78)] {
        std::fs::write(&file, content).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut check = command(&["check", "--config"]);
        let check = check.arg(&file).stdout(writer.try_clone().unwrap()).stderr(writer);
        assert_eq!(check.status().unwrap().code(), Some(expected));
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn bad_usage_is_exit_2() {
    for arguments in [&["fly"][..], &["run", "--nonsense"], &["run", "--log", "loud"], &["run", "--log-format", "xml"]]
    {
        let output = command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn a_command_without_a_server_says_so() {
    for name in ["reload", "flush"] {
        let output = command(&[name]).env("RUNTIME_DIRECTORY", "/nonexistent").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr.lines().count() == 1 && stderr.contains("/nonexistent"), "{stderr}");
    }
}

#[test]
fn an_empty_log_level_is_bad_usage() {
    for level in ["", " ", " , "] {
        let output = command(&["log", "level", level]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && stderr.contains("is no log filter; write a level"), "{stderr}");
    }
}

#[test]
fn many_reloads_at_once_all_have_an_outcome() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::start("reloads", &zone("a.example", &cluster));
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..40).map(|_| scope.spawn(|| daemon.reload())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (code, stdout, stderr) in outcomes {
        assert!(code == 0 && stdout.ends_with(": nothing has changed\n"), "{stdout}{stderr}");
    }
}

#[test]
fn a_server_takes_the_control_socket_over_and_binds_it_again() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let mut first = Daemon::start("control-first", &zone("a.example", &cluster));
    let directory = first.config_path().parent().unwrap().to_owned();
    let file = directory.join("second.toml");
    std::fs::write(&file, config(&zone("b.example", &cluster))).unwrap();
    let log = File::create(directory.join("second.log")).unwrap();
    let mut second = command(&["run", "--config", file.to_str().unwrap()]);
    let second = Killed(second.env("RUNTIME_DIRECTORY", &directory).stderr(log).spawn().unwrap());
    let said = || std::fs::read_to_string(directory.join("second.log")).unwrap();
    wait::until("the second server to find the socket taken", || {
        said().contains("another server is running").then_some(())
    });
    let reaches = |pid: u32| {
        let output = command(&["status"]).env("RUNTIME_DIRECTORY", &directory).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(&format!("process {pid} ")).then_some(())
    };
    assert_eq!(reaches(first.pid().as_raw().unsigned_abs()), Some(()));
    first.signal(Signal::SIGTERM);
    first.wait_exit(Duration::from_secs(5));
    wait::within(Duration::from_secs(5), "the second server to have the socket", || reaches(second.0.id()));
    assert!(said().contains("commands reach this server now: it listens on "), "{}", said());
    std::fs::remove_file(directory.join("control.sock")).unwrap();
    wait::within(Duration::from_secs(5), "the socket to be back", || reaches(second.0.id()));
    assert_eq!(said().matches("another server is running").count(), 1, "{}", said());
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_shows_the_main_job() {
    // Directories as systemd gives them to a server in production.
    let directory = scratch("demo");
    let mut demo = command(&["demo"])
        .env("RUNTIME_DIRECTORY", &directory)
        .env("STATE_DIRECTORY", &directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(demo.id().try_into().unwrap());
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let dig = lines.find(|line| line.contains("+short alternator.east")).unwrap();
    let word = |prefix: &str| dig.split_whitespace().find_map(|word| word.strip_prefix(prefix)).unwrap().to_owned();
    let port = dig.split("-p ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let server = format!("{}:{port}", word("@")).parse().unwrap();
    wait::until("two nodes", || {
        (dns::udp(server, &Question::new("alternator.east.example.com", "A")).answers.len() == 2).then_some(())
    });
    let stopped = lines.find(|line| line.contains("stopped")).unwrap();
    assert!(stopped.contains("noticed after"), "{stopped}");
    let restarted = lines.find(|line| line.contains("restarted")).unwrap();
    assert!(restarted.contains("noticed after"), "{restarted}");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0, "no socket and no state");
    let reload = command(&["reload"]).env("RUNTIME_DIRECTORY", &directory).output().unwrap();
    let stderr = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(stderr.contains("no server is running"), "the demo is not reached: {stderr}");
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    std::fs::remove_dir_all(directory).unwrap();
}

const TWO_ERRORS: &str = "[zones.\"a.example\"]\nseeds = [\"10.0.0.1:8000\"]\nttl = \"4\"\n";

/// Runs `check` on this text as its standard input.
fn check_stdin(arguments: &[&str], text: &str) -> (Option<i32>, String, String) {
    let mut check = command(arguments);
    let piped = check.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |octets| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_reads_standard_input_or_the_file_that_it_is_given() {
    let (code, stdout, _) = check_stdin(&["check", "-"], "[zones.\"a.example\"]\nseeds = [\"10.0.0.1\"]\n");
    assert_eq!(code, Some(0));
    assert!(stdout.contains("1 zone with 1 seed"), "{stdout}");
    let (code, stdout, stderr) = check_stdin(&["check", "-"], TWO_ERRORS);
    assert_eq!((code, &*stdout), (Some(78), ""));
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines[0].starts_with("<stdin>:2:10: ") && lines[1].starts_with("<stdin>:3:7: "), "{stderr}");
    assert_eq!(lines[2..], ["The configuration has 2 errors."]);
    let directory = scratch("check-file");
    let file = directory.join("config.toml");
    std::fs::write(&file, TWO_ERRORS).unwrap();
    let output = command(&["check"]).arg(&file).output().unwrap();
    let expected = stderr.replace("<stdin>", file.to_str().unwrap());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected, "no color in a pipe");
    let both = command(&["check", "--config", "a.toml", "b.toml"]).output().unwrap();
    assert_eq!(both.status.code(), Some(2), "two files are bad usage");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn check_reports_to_programs() {
    let (code, stdout, stderr) = check_stdin(&["check", "-", "--format", "json"], TWO_ERRORS);
    assert_eq!((code, &*stderr), (Some(78), "The configuration has 2 errors.\n"));
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["good"], &report["hash"]), (&false.into(), &serde_json::Value::Null));
    let places: Vec<_> =
        report["errors"].as_array().unwrap().iter().map(|error| (&error["line"], &error["column"])).collect();
    assert_eq!(places, [(&2.into(), &10.into()), (&3.into(), &7.into())]);
    let (_, stdout, _) = check_stdin(&["check", "-", "--format", "github"], TWO_ERRORS);
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[1].starts_with("::error file=<stdin>,line=3,col=7::"), "{stdout}");
    let good = "[zones.\"a.example\"]\nseeds = [\"10.0.0.1\"]\ntimeout = \"3s\"\n";
    let (code, stdout, _) = check_stdin(&["check", "-", "--format", "json"], good);
    let report: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &report["good"]), (Some(0), &true.into()));
    assert_eq!(report["warnings"].as_array().unwrap().len(), 1, "{stdout}");
    let (code, stdout, stderr) = check_stdin(&["check", "/nonexistent.toml", "--format", "github"], "");
    assert_eq!(code, Some(78));
    assert!(stdout.starts_with("::error file=/nonexistent.toml::") && stderr.lines().count() == 1, "{stdout}{stderr}");
}

/// Runs a command line on a terminal, with `script` of util-linux; `None` where that is not installed.
fn on_a_terminal(line: &str, no_color: &str) -> Option<String> {
    let mut script = std::process::Command::new("script");
    script.args(["-qec", line, "/dev/null"]).env("NO_COLOR", no_color).stdin(Stdio::null());
    Some(String::from_utf8(script.output().ok()?.stdout).unwrap())
}

#[test]
fn complaints_have_colors_on_a_terminal_unless_no_color_is_set() {
    let directory = scratch("colors");
    let file = directory.join("config.toml");
    std::fs::write(&file, TWO_ERRORS).unwrap();
    let line = format!("{} check {}", env!("CARGO_BIN_EXE_alternator-dns"), file.display());
    if let (Some(colored), Some(plain)) = (on_a_terminal(&line, ""), on_a_terminal(&line, "1")) {
        assert!(colored.contains(&format!("\x1b[1;31m{}:3:7:\x1b[0m ", file.display())), "{colored}");
        assert!(plain.contains(&format!("{}:3:7: ", file.display())) && !plain.contains('\x1b'), "{plain}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn config_show_says_where_each_value_comes_from() {
    let directory = scratch("show");
    let file = directory.join("config.toml");
    std::fs::write(&file, "[defaults]\nttl = \"9s\"\n[zones.\"a.example\"]\nseeds = [\"10.0.0.1\"]\n").unwrap();
    let show = |arguments: &[&str]| {
        let mut show = command(&["config", "show", "--config"]);
        let output = show.arg(&file).args(arguments).env("STATE_DIRECTORY", "/var/lib/x").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stdout, _) = show(&[]);
    assert_eq!(code, Some(0));
    for line in [
        format!("ttl = \"9s\"  # {}:2, [defaults]", file.display()),
        format!("seeds = [\"10.0.0.1\"]  # {}:4", file.display()),
        "port = 8000  # default".into(),
        "# state_dir is not set; $STATE_DIRECTORY has /var/lib/x".into(),
    ] {
        assert!(stdout.lines().any(|shown| shown == line), "{line}\n{stdout}");
    }
    let (code, stdout, _) = show(&["a.example"]);
    assert!(code == Some(0) && stdout.starts_with("[zones.\"a.example.\"]"), "{stdout}");
    let (code, _, stderr) = show(&["b.example"]);
    assert!(code == Some(1) && stderr.ends_with("has no zone b.example.\n"), "{stderr}");
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_schema_is_json() {
    let output = command(&["schema"]).output().unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["properties"]["defaults"]["properties"]["port"]["maximum"], 65_535);
}

#[test]
fn shells_complete_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = command(&["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains("completions") && script.contains("last-good"), "{shell}");
    }
    // What the package installs, in the shell that is everywhere.
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_alternator-dns")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let line = "source packaging/completions/alternator-dns.bash; COMP_WORDS=(alternator-dns rel); COMP_CWORD=1; \
                complete=$(complete -p alternator-dns | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
                $complete alternator-dns rel alternator-dns; echo \"${COMPREPLY[@]}\"";
    let bash = std::process::Command::new("bash").args(["-c", line]).env("PATH", path).output();
    if let Ok(bash) = bash {
        assert_eq!(String::from_utf8_lossy(&bash.stdout).trim(), "reload", "{bash:?}");
    }
}

#[test]
fn the_log_level_is_changed_for_a_time() {
    // A server of these tests starts at the level debug, and logs each failed poll there.
    let keys = "refresh = \"100ms\"\nhealth = false\n";
    let daemon = Daemon::start("log-level", &zone_with("a.example", &["127.0.0.1".parse().unwrap()], 1, keys));
    let (code, stdout, stderr) = daemon.command(&["log", "level", "warn", "--for", "2s"]);
    assert_eq!((code, &*stderr), (0, ""));
    let server = format!("process {} with the file {}", daemon.pid(), daemon.config_path().display());
    assert_eq!(stdout.trim(), format!("{server}: the log level is warn for 2s"));
    let over = |log: &str| log.matches("the log level is again that of the start").count();
    wait::until("the level of the start", || (over(&daemon.log()) == 1).then_some(()));
    let log = daemon.log();
    let meanwhile = log.split("the log level is").nth(1).unwrap();
    assert!(meanwhile.matches("DEBUG").count() <= 2, "twenty polls were not logged: {meanwhile}");
    let afterwards = || daemon.log().rsplit("again that of the start").next().unwrap().matches("DEBUG").count();
    wait::until("lines of the level debug again", || (afterwards() > 2).then_some(()));
    // At once, on demand.
    assert_eq!(daemon.command(&["log", "level", "trace"]).0, 0);
    assert_eq!(daemon.command(&["log", "level", "default"]).0, 0);
    wait::until("the level of the start again", || (over(&daemon.log()) == 2).then_some(()));
    for bad in [&["log", "level", "deubg"][..], &["log", "level", "debug", "--for", "25h"], &["log", "level"]] {
        assert_eq!(daemon.command(bad).0, 2, "{bad:?}");
    }
}

#[test]
fn each_error_of_a_refused_file_is_a_line_of_the_log() {
    let daemon = Daemon::start("error-lines", &zone_with("a.example", &["127.0.0.1".parse().unwrap()], 1, ""));
    files::rename_over(&daemon.config_path(), TWO_ERRORS);
    assert_eq!(daemon.reload().0, 78);
    let place = |place: &str| format!("ERROR {}:{place}: ", daemon.config_path().display());
    let lines = [place("2:10"), place("3:7")];
    wait::until("both errors", || lines.iter().all(|line| daemon.log().contains(line)).then_some(()));
}

#[test]
fn output_that_cannot_be_written_is_a_failure_and_a_closed_pipe_is_none() {
    for arguments in [&["schema"][..], &["completions", "bash"], &["check", "config/minimal.toml"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command(arguments).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said.starts_with("cannot write the output: "), "{arguments:?}: {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert!(command(arguments).stdout(writer).output().unwrap().status.success(), "{arguments:?}");
    }
}
