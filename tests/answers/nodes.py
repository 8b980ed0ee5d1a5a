"""The nodes of the clusters: nodes.py PORT LAYOUTS, the latter in JSON.

They list each other under the usual port. Under PORT they count connections: for each line of standard input the counts
are printed as JSON.
"""

import json
import socket
import sys
import threading
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))
sys.dont_write_bytecode = True

from cluster import Cluster  # noqa: E402

counts = Counter()


def count(family, port):
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(("", port))
    listener.listen(1024)
    while True:
        connection, _ = listener.accept()
        counts[f"{connection.getsockname()[0]}"] += 1
        connection.close()


def main(port, layouts):
    clusters = [Cluster(addresses) for addresses in layouts.values()]
    for family in (socket.AF_INET, socket.AF_INET6):
        threading.Thread(target=count, args=(family, port), daemon=True).start()
    print(f"{len(clusters)} clusters", flush=True)
    for _ in sys.stdin:
        print(json.dumps(counts.copy()), flush=True)


main(int(sys.argv[1]), json.loads(sys.argv[2]))
