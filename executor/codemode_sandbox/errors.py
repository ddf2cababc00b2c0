"""Errors of user code, made readable: the cell's own lines, and what to do next."""

import errno
import math
import os
import traceback
from contextlib import suppress
from types import TracebackType

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
MAX_TRACEBACK = 200_000
# How far from the limit a count may be: some may have ended since.
_FEW = 4
# The limits of this sandbox by name, told at its start.
limits: dict[str, float] = {}


def without_our_frames(tb: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of this package, which mean nothing to the cell's author."""
    kept: TracebackType | None = None
    frames: list[TracebackType] = []
    while tb is not None:
        if not tb.tb_frame.f_code.co_filename.startswith(_OURS):
            frames.append(tb)
        tb = tb.tb_next
    for frame in reversed(frames):
        kept = TracebackType(kept, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return kept


def clean(error: BaseException) -> None:
    """Take our frames out of an exception and of those it came from."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    # Not recursive: a chain may be longer than Python's stack.
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = without_our_frames(one.__traceback__)
        left += [one.__cause__, one.__context__]


def add_hint(error: BaseException) -> str:
    """Add a note to the errors that a sandbox causes and its user can mend.

    Returns:
        The limit that caused it, as far as can be seen; or empty.
    """
    limit = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        hint = f"The sandbox has no module {top!r}. {os.environ.get('CODEMODE_PACKAGE_HINT', '')}".strip()
    elif isinstance(error, FileNotFoundError) and error.filename is not None:
        hint = (
            "The sandbox sees its own working directory, not your files. Bring a file in with "
            "session.put_file(path), or hand its contents over with a tool."
        )
    elif isinstance(error, OSError) and type(error).__name__ in {"gaierror", "ConnectionError"}:
        hint = "The sandbox has no network. Register a tool that fetches, and call it from here."
    elif limit := _limit_of(error):
        hint = f"This is the sandbox's limit {limit}={limits[limit]:,}. Use less at a time, or ask for more."
    else:
        return ""
    if hint not in getattr(error, "__notes__", ()):
        error.add_note(hint)
    return limit


def _limit_of(error: BaseException) -> str:
    found = ""
    if isinstance(error, MemoryError):
        found = "memory_bytes"
    elif isinstance(error, OSError) and error.errno == errno.EMFILE:
        found = "open_files"
    elif isinstance(error, OSError) and error.errno == errno.EFBIG:
        found = "tmp_bytes"
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        found = _what_is_full()
    elif isinstance(error, BlockingIOError) or message_of(error) == "can't start new thread":
        # Other things are "temporarily unavailable" as well.
        found = "processes" if _tasks() >= limits.get("processes", math.inf) - _FEW else ""
    return found if found in limits else ""


def _what_is_full() -> str:
    numbers = os.statvfs(os.environ.get("TMPDIR", "/tmp"))
    return "tmp_inodes" if numbers.f_ffree == 0 else "tmp_bytes" if numbers.f_bavail == 0 else ""


def _tasks() -> int:
    """Processes and threads of the sandbox; none are seen where the code has left no descriptor free."""
    count = 0
    with suppress(OSError):
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                count += len(os.listdir(f"/proc/{pid}/task"))
    return count


def line_of(error: BaseException, filenames: set[str]) -> int:
    """Line of the code in which the error arose, from 1; 0 when it arose elsewhere."""
    if isinstance(error, SyntaxError) and error.filename in filenames:
        return error.lineno or 0
    line = 0
    tb = error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename in filenames:
            line = tb.tb_lineno
        tb = tb.tb_next
    return line


def plain_traceback(error: BaseException) -> str:
    """The traceback as Python prints it."""
    try:
        text = "".join(traceback.format_exception(error, limit=-50))
    except BaseException as failure:  # noqa: BLE001 - the exception's own code may do anything
        text = f"{type(error).__name__}: (its text could not be made: {type(failure).__name__})"
    if len(text) > MAX_TRACEBACK:
        text = text[: MAX_TRACEBACK // 2] + "\n... cut ...\n" + text[-MAX_TRACEBACK // 2 :]
    return text


def message_of(error: BaseException) -> str:
    """`str(error)`, whatever its class does there."""
    try:
        return str(error)[:20_000]
    except BaseException as failure:  # noqa: BLE001
        return f"(its message could not be made: {type(failure).__name__})"
