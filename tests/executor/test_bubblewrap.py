"""Namespaces that are ended before they stand."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from contextlib import suppress
from pathlib import Path

from codemode_executor.backends.bubblewrap import BubblewrapBackend, BubblewrapSandbox
from codemode_executor.limits import SandboxLimits
from codemode_executor.link import SandboxLink

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
    backend = BubblewrapBackend(preload=[mark])
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


def test_what_bubblewrap_has_not_tied_to_itself_yet_ends_with_it() -> None:
    # As a child of bubblewrap is for some milliseconds, before it asks to be killed with its parent.
    seconds = f"1000.{secrets.randbelow(10**9)}"
    process = subprocess.Popen(
        ["sh", "-c", f"sleep {seconds} & echo started; wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        assert len(processes_with(f"sleep {seconds}")) == 2
        asyncio.run(kill(process))
    assert processes_with(f"sleep {seconds}") == []


async def kill(process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(10):
        await BubblewrapSandbox(process, LIMITS, SandboxLink()).kill()
