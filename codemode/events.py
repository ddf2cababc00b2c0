"""What happens while code runs, as it happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from codemode.results import ExecutionResult, RichOutput


@dataclass(frozen=True, slots=True)
class Started:
    """The code begins to run.

    Attributes:
        backend: What isolates it, such as ``docker``.
        sandbox_id: Identifier of the sandbox.
        limits: The limits in force, by name.
    """

    backend: str
    sandbox_id: str
    limits: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class OutputText:
    """The code printed.

    Attributes:
        stream: Where to.
        text: What.
    """

    stream: Literal["stdout", "stderr"]
    text: str


@dataclass(frozen=True, slots=True)
class DisplayOutput:
    """The code displayed something, or its last expression has a value.

    Attributes:
        output: What.
    """

    output: RichOutput


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The code calls a tool.

    Attributes:
        call_id: Number of the call within the execution.
        name: Name of the tool.
        arguments_json: JSON object with ``args`` and ``kwargs``, as the sandbox sent it.
    """

    call_id: int
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class InputRequested:
    """The code waits for a line of input.

    Attributes:
        prompt: What it asks.
        password: Whether the line must not be shown.
    """

    prompt: str
    password: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """The code ended; nothing comes after it.

    Attributes:
        result: The whole outcome.
    """

    result: ExecutionResult


ExecutionEvent = Started | OutputText | DisplayOutput | ToolCalled | InputRequested | Finished
"""Any of them."""

__all__ = [
    "DisplayOutput",
    "ExecutionEvent",
    "Finished",
    "InputRequested",
    "OutputText",
    "Started",
    "ToolCalled",
]
