"""Memory that the kernel holds for a sandbox in no process's pages: what was written and not yet read.

Of Unix sockets and pipes the kernel tells no more than that they are there, so
each counts for what it can hold, except for a few.
"""

from contextlib import suppress
from pathlib import Path

# What the kernel lets one Unix socket hold unless its administrator allows more (net.core.wmem_max, twice).
_SOCKET_BYTES = 2 * 212_992
_FREE_SOCKETS = 64
# Of the network's, one may hold ten megabytes.
_FEW_SOCKETS = 4
# A pipe has so much room, until those of its user have so much together; then a new one has two pages, and
# none may be made larger (pipe(7), its default of pipe-user-pages-soft).
_PIPE_BYTES, _PIPES_BYTES, _SMALL_PIPE_BYTES = 64 << 10, 64 << 20, 8 << 10
_FREE_PIPES = 64


def pipe_bytes(pipes: int) -> int:
    """What so many pipes can hold; 0 when they are few."""
    if pipes <= _FREE_PIPES:
        return 0
    return min(pipes * _PIPE_BYTES, _PIPES_BYTES) + pipes * _SMALL_PIPE_BYTES


def unix_socket_bytes(sockets: int) -> int:
    """What so many Unix sockets can hold; 0 when they are few."""
    return max(0, sockets - _FREE_SOCKETS) * _SOCKET_BYTES


def network_bytes() -> int:
    """What was written to the network's sockets and not read; 0 when there are only a few."""
    if _network_sockets() <= _FEW_SOCKETS:
        return 0
    # Slow, because the kernel looks through a table for the whole machine.
    return sum(map(_queued_bytes, ("tcp", "tcp6", "udp", "udp6")))


def unix_sockets() -> int:
    """How many there are in this network namespace, also those that are on their way in a message."""
    with suppress(OSError):
        return Path("/proc/net/unix").read_bytes().count(b"\n") - 1
    return 0


def _network_sockets() -> int:
    """How many there are in this network namespace, of both versions of IP."""
    count = 0
    for name in ("sockstat", "sockstat6"):
        with suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/net/{name}").read_text().splitlines():
                if line.startswith(("TCP", "UDP")):
                    count += int(line.split()[2])
    return count


def _queued_bytes(protocol: str) -> int:
    queued = 0
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            sent, _, received = line.split()[4].partition(":")
            queued += int(sent, 16) + int(received, 16)
    return queued
