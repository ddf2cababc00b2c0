"""One set of Linux namespaces that bubblewrap has made, from its start to its end."""

import asyncio
import json
import os
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from codemode_executor.backends.base import Sandbox
from codemode_executor.backends.control_groups import ControlGroup
from codemode_executor.errors import BackendError
from codemode_executor.limits import SandboxLimits
from codemode_executor.link import SandboxLink


@dataclass(frozen=True, slots=True)
class Ends:
    """The executor's ends of what it shares with a sandbox that starts.

    Attributes:
        stream: The byte stream to the supervisor.
        info: Descriptor on which bubblewrap says which process is the first inside.
        word: Descriptor on which that process waits, before it runs anything, until it is closed.
    """

    stream: socket.socket
    info: int
    word: int


@dataclass(frozen=True, slots=True)
class _FirstProcess:
    """Process 1 of the namespaces, by the number it has outside.

    Attributes:
        pid: The number.
        handle: A descriptor of the process (pidfd_open(2)), which stays right when the number is used again.
    """

    pid: int
    handle: int


class NamespaceSandbox(Sandbox):
    """One set of namespaces.

    Args:
        process: The command `bwrap`, which waits outside for the end of what is inside.
        ends: What is shared with it; this takes them over.
        limits: The limits of the sandbox.
        group: The control group it belongs in, if any; it is removed with the sandbox.
    """

    backend = "bubblewrap"

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        ends: Ends,
        limits: SandboxLimits,
        group: ControlGroup | None = None,
    ) -> None:
        super().__init__(f"bwrap-{process.pid}", limits, SandboxLink())
        self._process = process
        self._ends = ends
        self._group = group
        # A task of its own: when whoever waits for it is cancelled, there is still a process to be killed.
        self._first = asyncio.ensure_future(_first_process(ends.info))

    async def open(self) -> None:
        """Let it start, in its control group, and wait until it can take work.

        Raises:
            BackendError: The control group does not take it.
            SandboxDiedError: It ended.
        """
        with ExitStack() as unless_connected:
            unless_connected.callback(self._ends.stream.close)
            try:
                await self._enclose()
            finally:
                os.close(self._ends.word)
            await asyncio.get_running_loop().create_connection(lambda: self.link, sock=self._ends.stream)
            unless_connected.pop_all()
        self.boot = await self.link.ready

    async def _enclose(self) -> None:
        first = await asyncio.shield(self._first)
        if first is None or self._group is None:
            return
        try:
            # In a thread, because the kernel takes its time when nobody has done it for a while.
            await asyncio.to_thread(self._group.add, first.pid)
        except OSError as error:
            raise BackendError(
                f"a sandbox could not be put in its control group ({error}); "
                "set CODEMODE_EXECUTOR_CONTROL_GROUPS=false to do without"
            ) from error

    async def kill(self) -> None:  # noqa: D102 - as in Sandbox
        # The first process inside, and with it, by the kernel's doing, everything else; then `bwrap` ends.
        # The other way about would not do: it is tied to `bwrap` only shortly before its program starts.
        first = await self._first
        if self._process.poll() is None:
            if first is None:
                self._process.kill()
            else:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(first.handle, signal.SIGKILL)
            await asyncio.to_thread(self._process.wait)
        if self._process.stderr is not None and not self._process.stderr.closed:
            self._process.stderr.close()
            if first is not None:
                os.close(first.handle)
            if self._group is not None:
                self._group.remove()
        self.link.abort("the sandbox was removed")

    async def ended_for_memory(self) -> bool:  # noqa: D102 - as in Sandbox
        return self._group is not None and self._group.ran_out_of_memory()

    def last_words(self) -> str:
        """What bubblewrap said before it failed."""
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        return (self._process.stderr.read(4000) or b"").decode("utf-8", "replace").strip()


async def _first_process(info: int) -> _FirstProcess | None:
    """Wait for what bubblewrap says of the process it has started; None when it ended before."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(info, "rb", 0)
    )
    try:
        said = await reader.read()
    finally:
        transport.close()
    if not said:
        return None
    pid = int(json.loads(said)["child-pid"])
    with suppress(ProcessLookupError):
        return _FirstProcess(pid, os.pidfd_open(pid))
    return None
