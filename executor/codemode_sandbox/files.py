"""A forked process that moves files of the working directory for the executor.

Apart from the interpreter, so that files move while code runs, and apart from
the supervisor, which must never open a path that user code chose.
"""

import hashlib
import os
import socket
import stat
from typing import Any

from codemode_sandbox.channel import Channel
from codemode_sandbox.frames import FILE_PIECE, FILE_WINDOW, Message, MessageKind
from codemode_sandbox.processes import CHANNEL_DESCRIPTOR


class PathError(Exception):
    """The path cannot be used."""


def serve_files(work: str) -> None:
    """Serve one transfer in `work`, then return."""
    channel = Channel()
    channel.open(socket.socket(fileno=CHANNEL_DESCRIPTOR))
    command = channel.next_command()
    if command is None:
        return
    try:
        if command.kind == MessageKind.PUT:
            _put(channel, work, command)
        else:
            _get(channel, work, command)
    except PathError as error:
        channel.send(MessageKind.FILE_DONE, {"error": str(error)})
    except OSError as error:
        path = command.head.get("path")
        channel.send(MessageKind.FILE_DONE, {"error": f"{path}: {error.strerror or type(error).__name__}"})
    # The executor closes the channel when it has read everything.
    channel.next_command()


def inside(work: str, path: Any) -> str:
    """The absolute path of `path` in `work`, links resolved. Raises PathError when it leads elsewhere."""
    if not isinstance(path, str) or not path or "\0" in path:
        raise PathError("path: it must be a relative path of at least one character")
    full = os.path.realpath(os.path.join(work, path))
    if full != work and not full.startswith(work + os.sep):
        raise PathError(f"path: {path!r} leads out of the working directory")
    return full


def _put(channel: Channel, work: str, command: Message) -> None:
    target = inside(work, command.head.get("path"))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    left = int(command.head.get("size", 0))
    digest, size = hashlib.sha256(), 0
    partial = f"{target}.{os.getpid()}.part"
    try:
        with open(partial, "xb") as file:
            while left > 0:
                piece = channel.next_command()
                if piece is None:
                    return
                file.write(piece.body)
                digest.update(piece.body)
                size += len(piece.body)
                left -= len(piece.body)
                # An acknowledgement per piece bounds what is under way.
                channel.send(MessageKind.FILE_CHUNK)
        os.replace(partial, target)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
    channel.send(MessageKind.FILE_DONE, {"size": size, "sha256": digest.hexdigest()})


def _get(channel: Channel, work: str, command: Message) -> None:
    source = inside(work, command.head.get("path"))
    # Not blocking, so that a named pipe does not hold the transfer for ever.
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise PathError(f"path: {command.head.get('path')!r} is not a file")
        channel.send(MessageKind.FILE_STARTED, {"size": status.st_size})
        left, under_way = status.st_size, 0
        while left > 0 and (piece := file.read(min(FILE_PIECE, left))):
            if under_way == FILE_WINDOW:
                # The executor says when it has passed one on, so that it never holds a whole file.
                if channel.next_command() is None:
                    return
                under_way -= 1
            channel.send(MessageKind.FILE_CHUNK, None, piece)
            under_way += 1
            left -= len(piece)
    channel.send(MessageKind.FILE_DONE, {})
