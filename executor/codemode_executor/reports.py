"""How executions end: the interpreter's report, checked, and the executor's own words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codemode_proto.v1 import executor_pb2 as pb

from codemode_executor.limits import Limits

_MAX_LINES = 2000


@dataclass(slots=True)
class Report:
    """An interpreter's word on how its code ended."""

    result: str = ""
    value: pb.Value | None = None
    error: pb.ErrorDetails | None = None
    count: int = 0
    notices: list[pb.LimitNotice] = field(default_factory=list)


def report_of(head: Mapping[str, Any], body: bytes, limits: Limits) -> Report:
    """Read a report that may be forged. Raises ValueError, TypeError or KeyError when it makes no sense."""
    length = head["result"]
    if type(length) is not int or not 0 <= length <= len(body) or len(body) > 2 * limits.result_bytes + 4096:
        raise ValueError("the result does not fit")
    report = Report(result=body[:length].decode("utf-8", "replace"), count=_count(head.get("count", 0)))
    if head.get("has_value"):
        json.loads(body[length:])
        report.value = pb.Value(media_type="application/json", data=body[length:])
    if "cut_result" in head:
        size, limit = _count(head["cut_result"]), limits.result_bytes
        message = f"the result was cut: it has {size:,} bytes, above result_bytes={limit:,}"
        report.notices.append(pb.LimitNotice(limit="result_bytes", message=message))
    if head.get("process_killed_for_memory"):
        message = (
            "a process that the code started was ended by the kernel, because together they used more than "
            f"memory_bytes={limits.sandbox.memory_bytes:,}"
        )
        report.notices.append(pb.LimitNotice(limit="memory_bytes", message=message))
    if not head.get("ok"):
        report.error = _error(head["error"])
    return report


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise ValueError("no count")
    return value


def _clean(value: Any, limit: int) -> str:
    if type(value) is not str:
        raise TypeError("no text")
    return value[:limit].encode("utf-8", "replace").decode()


# All of a report is the code's own word. It may say which limit it ran into, with errors by which the
# executor itself never ends an execution; that a limit ended it is the executor's to say.
_GUESSES = {
    "MemoryError": ("memory_bytes",),
    "BlockingIOError": ("processes",),
    "RuntimeError": ("processes",),
    "OSError": ("open_files", "tmp_bytes", "tmp_inodes"),
}


def _error(error: Mapping[str, Any]) -> pb.ErrorDetails:
    kind = _clean(error["type"], 200)
    return pb.ErrorDetails(
        type=kind,
        message=_clean(error["message"], 20_000),
        traceback=_clean(error["traceback"], 250_000),
        traceback_lines=[_clean(line, 20_000) for line in error["lines"][:_MAX_LINES]],
        limit=limit if (limit := _clean(error.get("limit", ""), 100)) in _GUESSES.get(kind, ()) else "",
        tool=_clean(error.get("tool", ""), 256),
        line=_count(error.get("line", 0)),
    )


def timed_out(seconds: float, has_session: bool, killed: bool) -> pb.ErrorDetails:
    """The code ran longer than it may."""
    if not has_session:
        after = "it was stopped"
    elif killed:
        after = (
            "it did not stop when interrupted, so it was killed, and its session with all variables is lost"
        )
    else:
        after = "it was interrupted; its session and variables are kept"
    return pb.ErrorDetails(
        type="TimeoutError",
        message=(
            f"the code ran longer than timeout_seconds={seconds:g}; {after}. "
            "Do less at a time, or ask for a longer execution_timeout."
        ),
        limit="timeout_seconds",
    )


def out_of_memory(limits: Limits, has_session: bool) -> pb.ErrorDetails:
    """The code used more memory than it may, and was killed."""
    lost = "; its session with all variables is lost" if has_session else ""
    return pb.ErrorDetails(
        type="OutOfMemoryError",
        message=(
            f"the code used more than memory_bytes={limits.sandbox.memory_bytes:,} and was killed{lost}. "
            "Work on less at a time, or ask for more memory."
        ),
        limit="memory_bytes",
    )


def died(exit_code: int | None, killed_for: str | None, has_session: bool) -> pb.ErrorDetails:
    """The interpreter ended without a report."""
    lost = "; its session with all variables is lost" if has_session else ""
    if killed_for is not None:
        message = f"the code went over the limit {killed_for} and was killed{lost}"
    elif exit_code is None:
        message = f"the sandbox ended while the code ran{lost}"
    elif exit_code < 0:
        message = f"the interpreter was killed by signal {-exit_code}{lost}"
    else:
        message = f"the interpreter ended with exit code {exit_code} before the code did{lost}"
    return pb.ErrorDetails(type="SandboxDiedError", message=message, limit=killed_for or "")


def too_many_calls(limits: Limits, has_session: bool) -> pb.ErrorDetails:
    """The code went on calling tools long after it was told that it may call no more."""
    after = "and was stopped" if not has_session else "and was interrupted"
    return pb.ErrorDetails(
        type="LimitExceededError",
        message=(
            f"the code called tools more often than tool_calls={limits.tool_calls:,}, went on although "
            f"it was refused, {after}. Call less often, or ask for more tool_calls."
        ),
        limit="tool_calls",
    )


def violation(reason: str) -> pb.ErrorDetails:
    """The interpreter sent what is no message."""
    return pb.ErrorDetails(
        type="ProtocolViolationError",
        message=f"the code wrote over the interpreter's own channel, so it was killed ({reason})",
    )


def cancelled(reason: str) -> pb.ErrorDetails:
    """The execution is wanted no more."""
    return pb.ErrorDetails(type="CancelledError", message=reason)
