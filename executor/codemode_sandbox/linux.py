"""The few Linux calls that the standard library does not wrap."""

import ctypes
import os

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36

# Before the first fork, because loading a library in a child costs a fault per page.
_libc = ctypes.CDLL(None, use_errno=True)


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
