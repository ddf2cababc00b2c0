"""Whether the executor that started a sandbox is still alive.

Every executor holds a lock on a file for as long as it lives; the kernel drops
the lock when the process ends, however it ends. A sandbox names the file (a
container in its labels, a control group in its own name), so that another
executor of the same user on the same machine can tell an orphan from a sandbox
in use.
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
    """The lock of this executor, held until `release` or the end of the process.

    Attributes:
        name: The lock's name, which sandboxes carry.
    """

    def __init__(self) -> None:
        folder = _folder()
        folder.mkdir(mode=0o700, exist_ok=True)
        for left in folder.glob("*.lock"):
            # Asking removes it, if so.
            has_died(left.stem)
        self.name = secrets.token_hex(8)
        self._path = folder / f"{self.name}.lock"
        self._file = self._path.open("x")
        if fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if not self._path.exists():
                # Another executor, which just started, has asked before the lock was there.
                self._file.close()
                self._file = self._path.open("x")
                fcntl.flock(self._file, fcntl.LOCK_EX)

    @property
    def labels(self) -> dict[str, str]:
        """What a container must carry."""
        return {"codemode.lease": self.name, "codemode.host": platform.node()}

    def release(self) -> None:
        """Say that this executor is gone."""
        self._file.close()
        with suppress(OSError):
            self._path.unlink()


def is_orphan(labels: Mapping[str, str]) -> bool:
    """Whether the executor that gave a container these labels has died. False when that cannot be told."""
    return labels.get("codemode.host") == platform.node() and has_died(labels.get("codemode.lease", ""))


def has_died(name: str) -> bool:
    """Whether the executor with the lock of this name has died. False when that cannot be told."""
    if not name.isalnum() or fcntl is None:
        return False
    path = _folder() / f"{name}.lock"
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        # Released, or another user's: only the user's own folder tells.
        return _folder().is_dir()
    except OSError:
        return False
    with suppress(OSError):
        path.unlink()
    return True
