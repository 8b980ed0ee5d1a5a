"""Programs that are started here, and what they take: all their threads, and all their children."""

import os
import signal
import subprocess
import time
from pathlib import Path

PATIENCE = 90.0
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A program bound to a core, its output in a log."""

    def __init__(self, core, log, arguments, **environment):
        with open(log, "ab") as output:
            self.child = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=Path(log).parent,
                env={"PATH": os.environ["PATH"], **environment},
            )
        self.log = Path(log)

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def pids(self):
        """The program and its descendants."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    # Behind the name, which may hold anything in its parentheses.
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    pass
        pids = [self.child.pid]
        for pid in pids:
            pids.extend(child for child, parent in parents.items() if parent == pid)
        return pids

    def cpu(self):
        """Seconds of CPU so far, user and system, of all threads that there are or were, to the nanosecond:
        /proc/PID/stat has the same in hundredths of a second."""
        return sum(time.clock_gettime(~pid << 3 | 2) for pid in self.pids())

    def cpu_of(self, name):
        """Seconds of CPU so far of those threads whose names begin so."""
        took = 0
        for thread in Path(f"/proc/{self.child.pid}/task").iterdir():
            if (thread / "comm").read_text().startswith(name):
                took += int((thread / "schedstat").read_text().split()[0])
        return took / 1e9

    def user_and_system(self):
        """The same from /proc/PID/stat, apart."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self.pids()]
        return tuple(sum(int(field[at]) for field in fields) / TICKS for at in (11, 12))

    def resident(self):
        """Kilobytes in memory; what several processes share is counted once."""
        shares = [self.kilobytes(pid, "smaps_rollup", "Pss:") for pid in self.pids()]
        return sum(shares) if len(shares) > 1 else self.kilobytes(self.child.pid, "status", "VmRSS:")

    def peak(self):
        return self.kilobytes(self.child.pid, "status", "VmHWM:")

    @staticmethod
    def kilobytes(pid, file, field):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
        return 0

    def files(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def until(self, condition, what, seconds=PATIENCE, pause=0.02):
        """Waits for a condition; how long that took, in seconds."""
        start = time.monotonic()
        while not condition():
            if self.child.poll() is not None:
                raise Failure(f"{self.log.stem} has ended:\n{self.tail()}")
            if time.monotonic() - start > seconds:
                raise Failure(f"waited {seconds:.0f} s in vain until {what}:\n{self.tail()}")
            time.sleep(pause)
        return time.monotonic() - start

    def tail(self):
        return self.log.read_text(errors="replace")[-2000:]


class Failure(Exception):
    """A measurement that cannot be made; a sentence for a person."""
