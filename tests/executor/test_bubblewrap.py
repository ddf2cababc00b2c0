"""Namespaces that are ended before they stand."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from pathlib import Path

from codemode_executor.backends.bubblewrap import BubblewrapBackend
from codemode_executor.limits import SandboxLimits

LIMITS = SandboxLimits()


def processes_with(word: str) -> list[str]:
    """The command lines that hold a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if word in (line := path.read_text(errors="replace").replace("\0", " ")):
                found.append(line)
    return found


def test_a_sandbox_given_up_while_it_starts_leaves_no_process() -> None:
    asyncio.run(give_up_at_many_moments())


async def give_up_at_many_moments() -> None:
    # The name of a module that is not there, to know the processes by: it is among their arguments.
    mark = f"no_module_{secrets.token_hex(8)}"
    backend = BubblewrapBackend(preload=[mark], groups=None)
    try:
        for milliseconds in range(0, 60, 2):
            starting = asyncio.ensure_future(backend.start(LIMITS))
            await asyncio.sleep(milliseconds / 1000)
            starting.cancel()
            async with asyncio.timeout(10):
                with suppress(asyncio.CancelledError):
                    await (await starting).kill()
            assert processes_with(mark) == []
    finally:
        await backend.close()
