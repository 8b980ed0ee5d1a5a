"""One node of a cluster of two hundred, half of them IPv6: many_nodes.py PORT"""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
sys.dont_write_bytecode = True
from cluster import Cluster

NODES = [f"10.0.0.{n}" for n in range(1, 101)] + [f"2001:db8:1::{n:x}" for n in range(1, 101)]

cluster = Cluster(["127.0.0.1"], int(sys.argv[1]))
cluster.listed = NODES
# The cluster runs in a thread of its own until a signal ends the process.
signal.pause()
