"""Making the interpreter reachable for a sandbox that a root executor starts as nobody in particular.

A sandbox of an executor that runs as root must not run as root outside its
namespaces. But an unprivileged user may not be able to reach the interpreter
(root's home is closed), so the folders are bound to a place anyone can read,
in a mount namespace that only this thread and what it starts can see.
"""

import ctypes
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000
_PREFIX = "codemode-stage-"


class StagingError(Exception):
    """The kernel refused; the message says what."""


def _check(result: int, what: str) -> None:
    if result != 0:
        errno = ctypes.get_errno()
        raise StagingError(f"{what}: {os.strerror(errno)}")


class Stage:
    """Folders bound where every user can read them. Call on the thread that starts the sandboxes."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        _remove_stale()
        self._root = Path(tempfile.gettempdir()) / f"{_PREFIX}{os.getpid()}"
        self._root.mkdir(mode=0o755)
        self._root.chmod(0o755)
        try:
            _check(self._libc.unshare(_CLONE_NEWNS), "a mount namespace of our own")
            _check(
                self._libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "making mounts private"
            )
        except StagingError:
            self.close()
            raise

    def bind(self, source: Path) -> Path:
        """Bind a folder; returns where it can be reached."""
        target = self._root / f"{len(list(self._root.iterdir()))}"
        target.mkdir(mode=0o755)
        _check(
            self._libc.mount(str(source).encode(), str(target).encode(), None, _MS_BIND | _MS_REC, None),
            f"binding {source}",
        )
        return target

    def close(self) -> None:
        """Unmount and remove the place."""
        _unmount_all(self._libc, self._root.iterdir())
        _remove(self._root)


def _unmount_all(libc: ctypes.CDLL, targets: Iterable[Path]) -> None:
    for target in targets:
        libc.umount2(str(target).encode(), 2)


def _remove(root: Path) -> None:
    # Only empty folders: never what is still mounted.
    with suppress(OSError):
        for target in root.iterdir():
            target.rmdir()
        root.rmdir()


def _remove_stale() -> None:
    for root in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = root.name.removeprefix(_PREFIX)
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(root)
