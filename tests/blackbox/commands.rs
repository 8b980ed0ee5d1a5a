//! The commands that end by themselves, and the demo.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    daemon::{command, scratch},
    dns::{self, Question},
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
    let reply = dns::udp(server, &Question::new("alternator.east.example.com", "A"));
    assert_eq!(reply.answers.len(), 1);
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
