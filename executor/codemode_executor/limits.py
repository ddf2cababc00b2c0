"""Limits: their defaults, the operator's ceilings, and what a request may ask for."""

import math
from dataclasses import dataclass, fields, replace

from codemode_proto.v1 import executor_pb2 as pb

from codemode_executor.errors import InvalidRequestError

MB = 1 << 20


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """The limits that bind a whole sandbox, from its start to its end.

    Attributes:
        memory_bytes: Sum over all processes and files in memory; there is no swap beyond it.
        cpus: Processor time per second of wall time.
        processes: Processes and threads at once.
        open_files: File descriptors of one process.
        tmp_bytes: Size of `/tmp`, which holds the working directory.
        tmp_inodes: Files and directories in `/tmp`.
    """

    memory_bytes: int = 512 * MB
    cpus: float = 1.0
    processes: int = 128
    open_files: int = 1024
    tmp_bytes: int = 256 * MB
    tmp_inodes: int = 16_384


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit of one execution.

    Attributes:
        timeout_seconds: Wall time of the code.
        output_bytes: Standard output, standard error and displays together; what is above is cut.
        result_bytes: The result's text, and its typed value; what is above is cut.
        tool_calls: Calls of tools.
        tool_calls_per_second: Calls of tools a second; calls above wait for up to a second.
        sandbox: The limits of the sandbox.
    """

    timeout_seconds: float = 30.0
    output_bytes: int = 16 * MB
    result_bytes: int = 1 * MB
    tool_calls: int = 10_000
    tool_calls_per_second: int = 2_000
    sandbox: SandboxLimits = SandboxLimits()

    def to_proto(self) -> pb.Limits:
        """The same as a message, every field set."""
        return pb.Limits(**flatten(self))  # type: ignore[arg-type] # each value has its field's type


CEILINGS = Limits(
    timeout_seconds=3600.0,
    output_bytes=256 * MB,
    result_bytes=16 * MB,
    tool_calls=1_000_000,
    tool_calls_per_second=100_000,
    sandbox=SandboxLimits(
        memory_bytes=8 << 30,
        cpus=8.0,
        processes=4096,
        open_files=65_536,
        tmp_bytes=4 << 30,
        tmp_inodes=1_000_000,
    ),
)

# Below these an interpreter cannot work.
FLOORS = {
    "timeout_seconds": 0.001,
    "memory_bytes": 64 * MB,
    "cpus": 0.05,
    "processes": 4,
    "open_files": 32,
    "tmp_bytes": 1 * MB,
    "tmp_inodes": 64,
}

_OWN = [field.name for field in fields(Limits) if field.name != "sandbox"]
_SANDBOX = [field.name for field in fields(SandboxLimits)]


def flatten(limits: Limits) -> dict[str, float]:
    """Every limit by its name in the wire contract."""
    own = {name: getattr(limits, name) for name in _OWN}
    return own | {name: getattr(limits.sandbox, name) for name in _SANDBOX}


def change(limits: Limits, wanted: dict[str, float]) -> Limits:
    """`limits` with some of them replaced, by their names in the wire contract."""
    sandbox = replace(limits.sandbox, **{k: v for k, v in wanted.items() if k in _SANDBOX})  # type: ignore[arg-type]
    return replace(limits, sandbox=sandbox, **{k: v for k, v in wanted.items() if k in _OWN})  # type: ignore[arg-type]


def resolve(asked: pb.Limits, defaults: Limits, ceilings: Limits) -> Limits:
    """The limits in force for a request.

    Raises:
        InvalidRequestError: A value is above its ceiling, or too low to work with.
    """
    highest = flatten(ceilings)
    wanted: dict[str, float] = {}
    for name, ceiling in highest.items():
        if not asked.HasField(name):  # type: ignore[arg-type]
            continue
        value = getattr(asked, name)
        if not math.isfinite(value) or value > ceiling:
            raise InvalidRequestError(
                f"limits.{name}: {value:,} is above this executor's ceiling of {ceiling:,}; "
                "ask for less, or have its operator raise the ceiling"
            )
        floor = FLOORS.get(name, 0)
        if value < floor:
            raise InvalidRequestError(f"limits.{name}: {value:,} is below the least that works, {floor:,}")
        wanted[name] = value
    return change(defaults, wanted) if wanted else defaults
