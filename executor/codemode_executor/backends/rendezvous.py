"""A Unix socket at which a container meets the executor, where the engine runs on the same machine.

Every byte of an attached stream passes through the engine and its shim, which
takes as long as a whole execution. A socket that is bound into the container
passes through nothing. One connection is accepted, from the supervisor, which
runs no foreign code before; then nobody listens there any more, and what is
left in the container is a name that leads nowhere. Where the container cannot
connect, because the engine is elsewhere or a security module forbids it, the
supervisor speaks over the attached stream.
"""

import asyncio
import os
import secrets
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

# Where a container finds the socket.
INSIDE = "/run/codemode-link"
_PREFIX = "codemode-link-"


class Rendezvous:
    """A folder of this executor's for its sockets, which no other user of the machine can enter."""

    def __init__(self) -> None:
        _remove_stale()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))

    def open(self) -> "MeetingPoint":
        """Listen at a new place."""
        return MeetingPoint(self._folder / secrets.token_hex(6))

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)


class MeetingPoint:
    """One socket, for one container.

    Attributes:
        path: Where it is on this machine.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        self._listener.bind(str(path))
        # The container's user is another one; who can enter the folder is decided by the folder.
        path.chmod(0o666)
        self._listener.listen(1)

    async def accept(self) -> socket.socket:
        """Wait for the supervisor; nobody else is let in after it."""
        connection, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        connection.setblocking(False)
        self.close()
        return connection

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()
        with suppress(OSError):
            self.path.unlink()


def _remove_stale() -> None:
    """Remove what executors that were killed have left."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(folder, ignore_errors=True)
