"""A shorter way to the executor than the stream that a supervisor is started with.

The supervisor listens at a place in its own file system, before it runs
anything else, and says so over the stream. The executor connects there if it
can reach that place; else it says that nobody will come. One connection is
welcomed, from the user that the executor runs as; then the place is no more.
"""

import os
import select
import socket
import struct

from codemode_sandbox.frames import LINK_HEADER, LinkKind, pack_link

_STREAM_IN, _STREAM_OUT = 0, 1
# What the one who is let in reads first.
WELCOME = b"w"
_CREDENTIALS = struct.Struct("=iII")


def meet(path: str, uid: int) -> bool:
    """Wait for the executor, and put its connection in the place of the stream.

    Args:
        path: Where to listen.
        uid: The executor's user.

    Returns:
        False when it cannot come, and the stream stays.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        try:
            listener.listen(1)
            os.write(_STREAM_OUT, pack_link(LinkKind.LISTENING))
            while True:
                readable, _, _ = select.select([listener.fileno(), _STREAM_IN], [], [])
                if _STREAM_IN in readable:
                    # `STAY`, or the end of the stream, which the next read will find as well.
                    os.read(_STREAM_IN, LINK_HEADER.size)
                    return False
                connection, _ = listener.accept()
                with connection:
                    # Root, which may do anything, is also what a rootless engine's own user is in here.
                    if peer_of(connection)[1] in (uid, 0):
                        connection.sendall(WELCOME)
                        for descriptor in (_STREAM_IN, _STREAM_OUT):
                            os.dup2(connection.fileno(), descriptor)
                        return True
        finally:
            os.unlink(path)


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end of a Unix socket (SO_PEERCRED of unix(7))."""
    pid, uid, _ = _CREDENTIALS.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return pid, uid
