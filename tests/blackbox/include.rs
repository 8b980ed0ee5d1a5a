//! `include`: several files are one configuration, which is applied or refused as one and followed as one.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use alternator_dns::simulation::SimulatedCluster;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    daemon::{Daemon, command, config, scratch, zone, zones},
    files::{HangingDirectory, rename_over, replace_by_pipe},
    observe::serves,
    wait,
};

/// An edit is in the answers after so long, at the latest, as one of a single file is.
const EDIT: Duration = Duration::from_millis(1500);

/// The same where zones go that may be missing only because a file is half-written.
const REMOVAL: Duration = Duration::from_millis(4500);

/// A directory with a main file, which has the zone m.example, and zones.d beside it.
struct Place {
    directory: PathBuf,
    cluster: SimulatedCluster,
}

impl Place {
    fn new(name: &str) -> Self {
        let (directory, cluster) = (scratch(name), SimulatedCluster::start(1).unwrap());
        fs::create_dir(directory.join("zones.d")).unwrap();
        let place = Self { directory, cluster };
        fs::write(place.main(), place.main_text("zones.d/*.toml")).unwrap();
        place
    }

    fn main_text(&self, include: &str) -> String {
        let server = format!("[server]\ninclude = [\"{include}\"]\nstate_dir = \"{}\"\n", self.file("state").display());
        config(&self.zone("m")).replace("[server]\n", &server)
    }

    fn zone(&self, letter: &str) -> String {
        zone(&format!("{letter}.example"), &self.cluster)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn main(&self) -> PathBuf {
        self.file("config.toml")
    }

    fn start(&self) -> Daemon {
        let mut daemon = Daemon::launch_at(scratch("run"), &self.main());
        daemon.wait_ready();
        daemon
    }

    /// What `check` says, with the directory left out.
    fn check(&self) -> (i32, String) {
        let output = command(&["check", self.main().to_str().unwrap()]).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap().replace(&format!("{}/", self.directory.display()), "");
        (output.status.code().unwrap(), said)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[track_caller]
fn follows_within(limit: Duration, daemon: &Daemon, there: &str, gone: &str) {
    wait::within(limit, "the edit to be in the answers", || {
        let there = there.chars().all(|name| serves(daemon, &format!("{name}.example")));
        let gone = gone.chars().all(|name| daemon.ask(&format!("{name}.example"), "A").rcode == "Refused");
        (there && gone).then_some(())
    });
}

#[track_caller]
fn follows(daemon: &Daemon, there: &str, gone: &str) {
    follows_within(EDIT, daemon, there, gone);
}

/// Why the files are refused, once a complaint has this in it.
#[track_caller]
fn refused(daemon: &Daemon, part: &str) -> String {
    wait::until(&format!("a complaint with {part:?}"), || {
        daemon.api()["config"]["error"].as_str().filter(|error| error.contains(part)).map(str::to_owned)
    })
}

#[test]
fn included_files_are_followed_however_they_change() {
    let place = Place::new("include-follow");
    fs::write(place.file("zones.d/a.toml"), place.zone("a")).unwrap();
    let daemon = place.start();
    follows(&daemon, "ma", "bcd");
    // Written in place, renamed over, new, and renamed.
    fs::write(place.file("zones.d/a.toml"), place.zone("a") + &place.zone("b")).unwrap();
    follows(&daemon, "mab", "");
    rename_over(&place.file("zones.d/a.toml"), &(place.zone("a") + &place.zone("c")));
    follows(&daemon, "mac", "b");
    fs::write(place.file("zones.d/b.toml"), place.zone("b")).unwrap();
    follows(&daemon, "mabc", "");
    let hash = daemon.api()["config"]["hash"].clone();
    fs::rename(place.file("zones.d/b.toml"), place.file("zones.d/z.toml")).unwrap();
    wait::within(EDIT, "another name to be another configuration", || {
        (daemon.api()["config"]["hash"] != hash).then_some(())
    });
    let (_, explained, _) = daemon.command(&["explain", "b.example"]);
    assert!(explained.contains("zones.d/z.toml:1"), "{explained}");
    // The file may be about to come back.
    fs::remove_file(place.file("zones.d/z.toml")).unwrap();
    follows_within(REMOVAL, &daemon, "mac", "b");
    // In place a removed zone may be one that is not written yet.
    fs::write(place.file("zones.d/a.toml"), place.zone("a")).unwrap();
    follows_within(REMOVAL, &daemon, "ma", "c");
    // What does not match is not read.
    for name in [".b.toml", "b.toml~", "#b.toml#", "b.txt"] {
        fs::write(place.file("zones.d").join(name), "wrong").unwrap();
    }
    assert_eq!(daemon.reload().1.trim().rsplit(": ").next(), Some("nothing has changed"));
    // Another directory, and a link that another file is put behind.
    fs::create_dir(place.file("other.d")).unwrap();
    fs::write(place.file("first"), place.zone("d")).unwrap();
    fs::write(place.file("second"), place.zone("e")).unwrap();
    symlink("../first", place.file("other.d/d.toml")).unwrap();
    rename_over(&place.main(), &place.main_text("other.d/*.toml"));
    follows_within(REMOVAL, &daemon, "md", "a");
    rename_over(&place.file("first"), &(place.zone("d") + &place.zone("f")));
    follows(&daemon, "mdf", "");
    assert_eq!(daemon.metric("alternator_dns_config_reloads_total{result=\"refused\"}"), 0.0);
}

#[test]
fn a_swapped_directory_of_included_files_is_noticed_twice() {
    let place = Place::new("include-configmap");
    for (name, files) in [("..first", "a"), ("..second", "ab"), ("..third", "abc")] {
        fs::create_dir(place.file("zones.d").join(name)).unwrap();
        for letter in files.chars().map(String::from) {
            fs::write(place.file("zones.d").join(name).join(format!("{letter}.toml")), place.zone(&letter)).unwrap();
        }
    }
    symlink("..first", place.file("zones.d/..data")).unwrap();
    symlink("..data/a.toml", place.file("zones.d/a.toml")).unwrap();
    let daemon = place.start();
    follows(&daemon, "ma", "");
    for (new, letter, there) in [("..second", "b", "mab"), ("..third", "c", "mabc")] {
        symlink(new, place.file("zones.d/..tmp")).unwrap();
        fs::rename(place.file("zones.d/..tmp"), place.file("zones.d/..data")).unwrap();
        symlink(format!("..data/{letter}.toml"), place.file("zones.d").join(format!("{letter}.toml"))).unwrap();
        follows(&daemon, there, "");
    }
    rename_over(&place.file("zones.d/..third/c.toml"), &(place.zone("c") + &place.zone("d")));
    follows(&daemon, "mabcd", "");
}

#[test]
fn an_error_in_one_file_keeps_all_and_names_its_place() {
    let place = Place::new("include-bad");
    fs::write(place.file("zones.d/a.toml"), place.zone("a")).unwrap();
    let daemon = place.start();
    rename_over(&place.file("zones.d/a.toml"), &(place.zone("a") + "ttl = 4\n"));
    refused(&daemon, "zones.d/a.toml:");
    fs::write(place.file("zones.d/b.toml"), place.zone("b")).unwrap();
    let (code, _, said) = daemon.reload();
    assert!(code == 78 && said.contains("zones.d/a.toml:") && said.contains("expected a duration"), "{said}");
    follows(&daemon, "ma", "b");
    fs::write(place.file("zones.d/a.toml"), place.zone("a")).unwrap();
    follows(&daemon, "mab", "");
    rename_over(&place.file("zones.d/b.toml"), &("# The same.\n".to_owned() + &place.zone("a") + &place.zone("b")));
    let error = refused(&daemon, "defined twice");
    let directory = place.file("zones.d");
    let expected =
        format!("{0}/b.toml:2:8: zone a.example. is defined twice; it is in {0}/a.toml:1 already", directory.display());
    assert_eq!(error, expected);
    let (code, said) = place.check();
    assert_eq!(code, 78);
    assert!(said.starts_with("zones.d/b.toml:2:8: zone a.example. is defined twice"), "{said}");
    replace_by_pipe(&place.file("zones.d/b.toml"));
    refused(&daemon, "zones.d/b.toml: it is not a regular file");
    fs::remove_file(place.file("zones.d/b.toml")).unwrap();
    follows_within(REMOVAL, &daemon, "ma", "b");
    // A directory that goes takes no zone with it.
    fs::rename(place.file("zones.d"), place.file("away")).unwrap();
    refused(&daemon, "there is no such directory");
    follows(&daemon, "ma", "");
    fs::rename(place.file("away"), place.file("zones.d")).unwrap();
    wait::until("the files to be good again", || daemon.api()["config"]["error"].is_null().then_some(()));
    fs::write(place.file("zones.d/c.toml"), place.zone("c")).unwrap();
    follows(&daemon, "mac", "");
}

#[test]
fn a_directory_that_is_written_anew_or_emptied_removes_no_zone_by_itself() {
    let place = Place::new("include-emptied");
    let write = |name: &str| fs::write(place.file(&format!("zones.d/{name}.toml")), place.zone(name)).unwrap();
    let remove = |name: &str| fs::remove_file(place.file(&format!("zones.d/{name}.toml"))).unwrap();
    write("a");
    write("b");
    let daemon = place.start();
    follows(&daemon, "mab", "");
    // As git does, and rsync with --delete-before: files go first, others come a moment later.
    for name in ["a", "b"] {
        remove(name);
    }
    wait::until("the pause to be announced", || {
        daemon.log().contains("they are applied after 3s of quiet").then_some(())
    });
    for name in ["a", "b", "c"] {
        write(name);
    }
    follows(&daemon, "mabc", "");
    assert_eq!(daemon.metric("alternator_dns_config_reloads_total{result=\"refused\"}"), 0.0);
    // Emptied for good, as by an unmount: it is a complaint, and all zones stay.
    for name in ["a", "b", "c"] {
        remove(name);
    }
    let error = refused(&daemon, "matches no file in ");
    assert!(error.contains("any more, where 3 zones in force came from, so nothing is removed"), "{error}");
    follows(&daemon, "mabc", "");
    assert_eq!(daemon.metric("alternator_dns_config_reload_success"), 0.0);
    write("a");
    follows_within(REMOVAL, &daemon, "ma", "bc");
    assert!(daemon.api()["config"]["error"].is_null());
    remove("a");
    refused(&daemon, "where 1 zone in force");
    assert_eq!(daemon.reload().0, 0, "an operator means it");
    follows(&daemon, "m", "abc");
}

#[test]
fn a_start_with_a_refused_included_file_serves_all_files_of_the_last_good_configuration() {
    let place = Place::new("include-last-good");
    fs::write(place.file("zones.d/a.toml"), place.zone("a")).unwrap();
    let mut daemon = place.start();
    wait::until("the configuration to be kept", || place.file("state/last-good.json").exists().then_some(()));
    daemon.signal(Signal::SIGTERM);
    daemon.wait_exit(Duration::from_secs(5));
    for break_it in
        [(|file: &Path| fs::write(file, "[zones.\"a.example\"]\nseeds = 1\n").unwrap()) as fn(&Path), |file: &Path| {
            fs::remove_dir_all(file.parent().unwrap()).unwrap()
        }]
    {
        break_it(&place.file("zones.d/a.toml"));
        let mut daemon = place.start();
        follows(&daemon, "ma", "");
        assert!(daemon.older().starts_with("AN OLDER CONFIGURATION IS SERVED"), "{}", daemon.older());
        fs::create_dir_all(place.file("zones.d")).unwrap();
        rename_over(&place.file("zones.d/a.toml"), &(place.zone("a") + &place.zone("b")));
        follows(&daemon, "mab", "");
        rename_over(&place.file("zones.d/a.toml"), &place.zone("a"));
        follows(&daemon, "ma", "b");
        wait::until("it to be kept", || {
            (!fs::read_to_string(place.file("state/last-good.json")).unwrap().contains("b.example")).then_some(())
        });
        daemon.signal(Signal::SIGTERM);
        daemon.wait_exit(Duration::from_secs(5));
    }
}

#[test]
fn commands_read_included_files_and_name_them() {
    let place = Place::new("include-commands");
    let (code, said) = place.check();
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("warning: include \"zones.d/*.toml\" matches no file in"), "{said}");
    fs::write(place.file("zones.d/a.toml"), place.zone("a")).unwrap();
    let (code, said) = place.check();
    assert!(code == 0 && said.contains("zones   2 zones with 2 seeds in all"), "{said}");
    let daemon = place.start();
    let included = place.file("zones.d/a.toml");
    let output = command(&["check", included.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let expected =
        format!("warning: this file is included by {}, and lacks the [defaults] there", place.main().display());
    assert!(output.status.success() && said.contains(&expected), "{said}");
    let (code, _, said) = daemon.command(&["plan", included.to_str().unwrap()]);
    let expected = format!(
        "{} is included by {1}, and is no configuration of its own; a reload reads both: `alternator-dns plan {1}`\n",
        included.display(),
        place.main().display()
    );
    assert_eq!((code, said), (78, expected));
    let (_, explained, _) = daemon.command(&["explain", "a.example"]);
    assert!(explained.contains("zones.d/a.toml:1"), "{explained}");
    assert_eq!(daemon.command(&["plan"]).0, 0);
    let main = place.main();
    let shown = command(&["config", "show", "--config", main.to_str().unwrap(), "a.example"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("zones.d/a.toml:2\n"), "{shown}");

    // From standard input, relative to the working directory.
    let run = |arguments: &[&str], text: &str| {
        let mut command = command(arguments);
        command.current_dir(&place.directory).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
    };
    fs::write(place.file("zones.d/b.toml"), place.zone("b") + "prt = 1\n").unwrap();
    let (code, json) = run(&["check", "-", "--format", "json"], &place.main_text("zones.d/*.toml"));
    let report: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (code, &report["file"], &report["errors"][0]["file"]),
        (78, &"<stdin>".into(), &"zones.d/b.toml".into()),
        "{json}"
    );
    let (_, github) = run(&["check", "config.toml", "--format", "github"], "");
    assert!(github.starts_with("::error file=zones.d/b.toml,line="), "{github}");

    fs::create_dir(place.file("more.d")).unwrap();
    fs::write(place.file("more.d/c.toml"), place.zone("c")).unwrap();
    fs::write(place.file("other.toml"), place.main_text("more.d/*.toml")).unwrap();
    let (code, plan, said) = daemon.command(&["plan", place.file("other.toml").to_str().unwrap()]);
    assert_eq!(code, 2, "{plan}{said}");
    for (zone, file) in
        [("- a.example. (removed, was at ", "zones.d/a.toml:1)"), ("+ c.example. (", "more.d/c.toml:1)")]
    {
        assert!(plan.lines().any(|line| line.starts_with(zone) && line.ends_with(file)), "{zone}{file}\n{plan}");
    }
}

#[test]
fn a_file_system_that_hangs_below_an_included_file_delays_no_query() {
    let place = Place::new("include-hanging");
    let hanging = HangingDirectory::new(&place.directory);
    fs::write(hanging.file("a.toml"), place.zone("a")).unwrap();
    fs::write(place.main(), place.main_text("hanging/*.toml")).unwrap();
    let mut daemon = Daemon::launch_with(scratch("run"), &place.main(), &hanging.environment());
    daemon.wait_ready();
    follows(&daemon, "ma", "");
    hanging.hang();
    let complaint = refused(&daemon, "the file system does not answer");
    assert!(serves(&daemon, "m.example") && serves(&daemon, "a.example"), "{complaint}");
    hanging.recover();
    rename_over(&hanging.file("a.toml"), &(place.zone("a") + &place.zone("b")));
    wait::until("the files to be read again", || serves(&daemon, "b.example").then_some(()));
    wait::until("the complaint to end", || daemon.api()["config"]["error"].is_null().then_some(()));
}

#[test]
fn a_file_alone_has_the_hash_that_it_had() {
    let cluster = SimulatedCluster::start(1).unwrap();
    let daemon = Daemon::with_config("include-hash", &zones("a", &cluster));
    let content = fs::read(daemon.config_path()).unwrap();
    assert_eq!(daemon.api()["config"]["hash"], alternator_dns::config::content_hash(&content));
}
