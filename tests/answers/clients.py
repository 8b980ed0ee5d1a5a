"""Client programs: each is a process that reads names, and says which node it connected to."""

import asyncio
import subprocess
from dataclasses import dataclass
from pathlib import Path

from network import CLIENT_PORT
from resolvers import ADDRESSES

SOURCES = Path(__file__).resolve().parent / "clients"
IN_FLIGHT = 4
"""Connections that one process makes at the same time while shares are measured."""
PATIENCE = 120.0


def build(directory):
    """The command of each client."""
    go = ["go", "build", "-o"]
    source = SOURCES / "client.go"
    c = SOURCES / "client.c"
    for command, environment in (
        (["gcc", "-O1", "-pthread", "-o", directory / "glibc", c], {}),
        (["musl-gcc", "-O1", "-static", "-pthread", "-o", directory / "musl", c], {}),
        ([*go, directory / "go", source], {"CGO_ENABLED": "0"}),
        ([*go, directory / "go-cgo", "-tags", "netcgo", source], {"CGO_ENABLED": "1"}),
        (["javac", "-d", directory, SOURCES / "Client.java"], {}),
    ):
        subprocess.run(["env", *[f"{key}={value}" for key, value in environment.items()], *command], check=True)
    java = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx64m", "-cp", directory]
    return {
        "glibc": [directory / "glibc"],
        "musl": [directory / "musl"],
        "Go": [directory / "go"],
        "Go, cgo": [directory / "go-cgo"],
        "Node": ["node", SOURCES / "client.js"],
        "Java": [*java, "-Dsun.net.inetaddr.ttl=0", "Client"],
        CACHING_JAVA: [*java, "Client"],
    }


CACHING_JAVA = "Java, caching 30 s"
"""With the cache of InetAddress, as by default. In the comparison of shares it would show that one process has one node
for 30 s; the other stands for as many processes as connections."""


@dataclass
class Connected:
    address: str
    """Empty if no address accepted."""
    seconds: float


class Client:
    """One program on one host that asks one resolver."""

    def __init__(self, name, resolver, process):
        self.name, self.resolver, self.process = name, resolver, process
        self.waiting = {}
        self.number = 0
        self.reader = asyncio.create_task(self.read())

    @classmethod
    async def start(cls, name, command, resolver, host, directory):
        resolv = directory / f"resolv.conf-{resolver}"
        resolv.write_text(f"nameserver {ADDRESSES[resolver]}\noptions timeout:2 attempts:3\n")
        script = 'mount --bind "$0" /etc/resolv.conf; exec "$@"'
        process = await asyncio.create_subprocess_exec(
            *host.enter,
            *["unshare", "--mount", "sh", "-ec", script, resolv, *command, str(CLIENT_PORT)],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return cls(name, resolver, process)

    async def read(self):
        while line := await self.process.stdout.readline():
            number, address, milliseconds = line.decode().split()
            connected = Connected("" if address == "-" else address, float(milliseconds) / 1000)
            if (future := self.waiting.pop(int(number))) and not future.done():
                future.set_result(connected)

    async def connect(self, name):
        self.number += 1
        future = asyncio.get_running_loop().create_future()
        self.waiting[self.number] = future
        self.process.stdin.write(f"{self.number} {name}\n".encode())
        return await asyncio.wait_for(future, PATIENCE)

    async def connect_to_all(self, names):
        """A few at a time; the results in the order of the names."""
        free = asyncio.Semaphore(IN_FLIGHT)

        async def one(name):
            async with free:
                return await self.connect(name)

        return await asyncio.gather(*[one(name) for name in names])

    async def stop(self):
        self.process.stdin.close()
        self.process.kill()
        await self.process.wait()
        self.reader.cancel()


async def start_all(commands, resolvers, host, directory):
    return await asyncio.gather(
        *[
            Client.start(name, command, resolver, host, directory)
            for resolver in resolvers
            for name, command in commands.items()
        ]
    )
