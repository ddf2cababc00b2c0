"""Whether the executor that started a container is still alive.

Every executor holds a lock on a file for as long as it lives; the kernel drops
the lock when the process ends, however it ends. A container names the file in
its labels, so that another executor of the same user on the same machine can
tell an orphan from a sandbox in use.
"""

import os
import platform
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:
    # Windows.
    fcntl = None  # type: ignore[assignment]


def _folder() -> Path:
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return Path(tempfile.gettempdir()) / f"codemode-executors-{user}"


class Lease:
    """The lock of this executor, held until `release` or the end of the process."""

    def __init__(self) -> None:
        folder = _folder()
        folder.mkdir(mode=0o700, exist_ok=True)
        self._path = folder / f"{secrets.token_hex(8)}.lock"
        self._file = self._path.open("x")
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)

    @property
    def labels(self) -> dict[str, str]:
        """What a container must carry."""
        return {"codemode.lease": self._path.stem, "codemode.host": platform.node()}

    def release(self) -> None:
        """Say that this executor is gone."""
        self._file.close()
        with suppress(OSError):
            self._path.unlink()


def is_orphan(labels: Mapping[str, str]) -> bool:
    """Whether the executor that gave a container these labels has died. False when that cannot be told."""
    lease = labels.get("codemode.lease", "")
    if labels.get("codemode.host") != platform.node() or not lease.isalnum() or fcntl is None:
        return False
    path = _folder() / f"{lease}.lock"
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        # Released, or another user's: only the engine's own user's folder tells.
        return _folder().is_dir()
    except OSError:
        return False
    with suppress(OSError):
        path.unlink()
    return True
