//! Figures of the kernel about this process.

use std::{
    fmt, fs, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use nix::sys::{
    resource::{Resource, UsageWho, getrlimit, getrusage},
    time::TimeValLike as _,
};
use prometheus_client::{encoding::NoLabelSet, metrics::MetricType, registry::Unit};

use super::{Families, Scrape};

impl Scrape {
    /// The process; what `/proc` has is left out where there is none.
    ///
    /// Pages are rendered on a blocking thread, so that these reads hold up no task. They have no deadline: the kernel
    /// makes `status` and the list of descriptors from its own memory. It asks no file system about the open files, and
    /// takes no lock that a page fault could hold (as `cmdline` and `smaps` do). Measured: 10 µs for `status`, also
    /// while other threads map memory; where the number of descriptors has to be counted, 15 µs for 50 and 4 ms for 15,000.
    pub(super) fn process(&self, families: &mut Families<'_>) -> fmt::Result {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        if let Some(octets) = octets(&status, "VmRSS:") {
            families.gauge("process_resident_memory", "Resident memory.", Some(Unit::Bytes), octets)?;
        }
        if let Some(octets) = octets(&status, "VmSize:") {
            families.gauge("process_virtual_memory", "Virtual memory.", Some(Unit::Bytes), octets)?;
        }
        if let Ok(open) = open_descriptors() {
            families.gauge("process_open_fds", "Open file descriptors.", None, open)?;
        }
        if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            families.gauge("process_max_fds", "The limit of open file descriptors.", None, limit)?;
        }
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            families.seconds_counter("process_cpu", "CPU time, user and system.", microseconds as f64 / 1e6)?;
        }
        let dropped = crate::telemetry::log_lines_dropped();
        families.counter("log_lines_dropped", "Log lines that standard error did not take.", dropped)?;
        let uptime = self.admin.started.elapsed();
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(uptime);
        let help = "Unix time at which the process started.";
        families.gauge("process_start_time", help, Some(Unit::Seconds), started.as_secs_f64())?;
        families.gauge("uptime", "Time since the process started.", Some(Unit::Seconds), uptime.as_secs_f64())
    }
}

impl Families<'_> {
    fn seconds_counter(&mut self, name: &str, help: &str, seconds: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&seconds, None)
    }
}

/// How many descriptors are open. Linux has their number for the size of their directory from 6.2 on, and 0 before.
fn open_descriptors() -> io::Result<u64> {
    let directory = Path::new("/proc/self/fd");
    match directory.metadata()?.len() {
        // One of them is open to read the list.
        0 => Ok((fs::read_dir(directory)?.count() as u64).saturating_sub(1)),
        open => Ok(open),
    }
}

/// A line of `/proc/self/status` in octets; it is in units of 1024.
fn octets(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::octets;
    use proptest::prelude::*;

    #[test]
    fn memory_is_read_in_octets() {
        let status = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t      12 kB\n";
        assert_eq!((octets(status, "VmRSS:"), octets(status, "VmSize:")), (Some(12_288), Some(2_097_152)));
        assert_eq!((octets("VmRSS: 12", "VmRSS:"), octets("", "VmRSS:")), (None, None));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(VmRSS:[ \\t]*[0-9]{0,15} kB\n|\\PC{0,20}\n){0,4}") {
            octets(&text, "VmRSS:");
        }
    }
}
