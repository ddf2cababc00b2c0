"""The few Linux calls that the standard library does not wrap."""

import ctypes
import os
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

# Before the first fork, because loading a library in a child costs a fault per page.
_libc = ctypes.CDLL(None, use_errno=True)
_oom_kills_seen = 0


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process by its number. Raises OSError as the kernel says."""
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno), f"prctl({option}, {value})")


def set_process_name(name: str) -> None:
    """Name this process as `ps` shows it; at most 15 bytes count."""
    _libc.prctl(PR_SET_NAME, ctypes.c_char_p(name.encode()), 0, 0, 0)


def advise(address: int, length: int, advice: int) -> bool:
    """Call madvise(2); returns whether the kernel took the advice."""
    return bool(_libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), advice) == 0)


def new_oom_kills() -> int:
    """How many processes of this sandbox the kernel has killed for memory since this was last asked.

    Asked in this process or in the one it was forked from. 0 where no control group of the sandbox's tells.
    """
    global _oom_kills_seen
    now = _oom_kills()
    new, _oom_kills_seen = now - _oom_kills_seen, now
    return new


def _oom_kills() -> int:
    for path, key in (
        ("/sys/fs/cgroup/memory.events", "oom_kill"),
        ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
    ):
        try:
            text = Path(path).read_text()
        except OSError:
            continue
        for line in text.splitlines():
            name, _, count = line.partition(" ")
            if name == key:
                return int(count)
    return 0
