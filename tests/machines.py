"""Two machines in this one: namespaces with processes, a host name and an address of their own, joined by a cable (veth).

Nothing of them has a name outside, as `ip netns add` would give it, so any number of tests may have theirs at once. Nothing is left
behind: a machine ends with its first process, which ends with its input, when this process does.
"""

import contextlib
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

ADDRESSES = {"one": "10.0.0.1", "two": "10.0.0.2"}  # by host name
INTERFACE = "eth0"
PROGRAMS = {"unshare": "util-linux", "nsenter": "util-linux", "mount": "mount", "ip": "iproute2"}
RIGHTS = "a right of root's is missing (CAP_SYS_ADMIN, CAP_NET_ADMIN)"
SPACES = ("--mount", "--net", "--pid", "--uts")
START = "echo $0 >/proc/sys/kernel/hostname && mount --bind $1 /etc/hosts && ip link set lo up && echo ready && exec cat"


class Unavailable(Exception):
    """Such machines cannot be made here; the text says what is missing."""


class Machine(NamedTuple):
    name: str
    first: int  # its first process, as it is numbered outside

    def command(self, *words: str, folder: str = "/") -> list[str]:
        """What runs a command there, in a folder; gloo does not find the interface by the host's name."""
        return ["nsenter", f"--target={self.first}", *SPACES, f"--wd={folder}", "env", f"GLOO_SOCKET_IFNAME={INTERFACE}", *words]

    def run(self, *words: str) -> None:
        subprocess.run(self.command(*words), check=True, capture_output=True, text=True, timeout=60)

    def received(self) -> int:
        """Bytes that came over the cable."""
        lines = pathlib.Path(f"/proc/{self.first}/net/dev").read_text().splitlines()
        (counts,) = (line.split() for line in lines if line.strip().startswith(f"{INTERFACE}:"))
        return int(counts[1])

    def plug(self, state: str) -> None:
        """The cable: "up" or "down". What is sent while it is down is lost, and nobody is told."""
        self.run("ip", "link", "set", INTERFACE, state)

    def kill(self) -> None:
        """All its processes but the first, at once."""
        self.run("sh", "-c", "kill -KILL -1")

    def give_up_early(self) -> None:
        """Connections whose other end is silent end after a second instead of a quarter of an hour."""
        self.run("sh", "-c", "echo 3 >/proc/sys/net/ipv4/tcp_retries2")


def hosts(name: str) -> str:
    """As Debian writes it: no machine finds its own address under its name."""
    known = {"localhost": "127.0.0.1", **ADDRESSES, name: "127.0.1.1"}
    return "".join(f"{address} {other}\n" for other, address in known.items())


def started(stack: contextlib.ExitStack, name: str, folder: pathlib.Path) -> Machine:
    file = folder / f"hosts.{name}"
    file.write_text(hosts(name))
    command = ["unshare", *SPACES, "--fork", "--kill-child", "--mount-proc", "sh", "-c", START, name, str(file)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stack.enter_context(process)
    stack.callback(process.kill)
    assert process.stdout
    assert process.stderr
    if process.stdout.readline() != "ready\n":
        raise Unavailable(f"{RIGHTS}: {process.stderr.read().strip()}")
    return Machine(name, int(pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()))


@contextlib.contextmanager
def two_machines(folder: pathlib.Path) -> Iterator[tuple[Machine, Machine]]:
    """They have the files of this one, but for /etc/hosts, which is kept in `folder`.

    Raises:
        Unavailable: a program or the right to make them is missing.
    """
    for program, package in PROGRAMS.items():
        if not shutil.which(program):
            raise Unavailable(f"the program {program} is missing ({package})")
    with contextlib.ExitStack() as stack:
        try:
            one, two = (started(stack, name, folder) for name in ADDRESSES)
            ends = ["netns", str(one.first), "type", "veth", "peer", INTERFACE, "netns", str(two.first)]
            subprocess.run(["ip", "link", "add", INTERFACE, *ends], check=True, capture_output=True, text=True, timeout=60)
            for machine in (one, two):
                machine.run("ip", "address", "add", f"{ADDRESSES[machine.name]}/24", "dev", INTERFACE)
                machine.plug("up")
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"{RIGHTS}, or veth: {' '.join(error.cmd)}: {error.stderr.strip()}") from None
        yield one, two
