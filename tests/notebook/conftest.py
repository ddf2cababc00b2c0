"""Real kernels, driven as a notebook's front end drives them, with real sandboxes behind their cells."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbformat import NotebookNode
from nbformat.v4 import output_from_msg

SECONDS = 60.0


@dataclass
class Ran:
    """What one cell showed, as a notebook stores it."""

    outputs: list[NotebookNode] = field(default_factory=list)

    def text(self, name: str = "stdout") -> str:
        return "".join(output.text for output in self.outputs if output.get("name") == name)

    @property
    def error(self) -> NotebookNode | None:
        return next((output for output in self.outputs if output.output_type == "error"), None)

    @property
    def traceback(self) -> str:
        """The error as it reads, without its colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(self.error.traceback)) if self.error else ""

    @property
    def value(self) -> str | None:
        """Text of the cell's value."""
        kinds = {output.output_type: output for output in self.outputs}
        return kinds["execute_result"].data["text/plain"] if "execute_result" in kinds else None

    def data(self, media_type: str) -> list[Any]:
        """What was displayed in this form, in order."""
        return [output.data[media_type] for output in self.outputs if media_type in output.get("data", ())]


class RunningCell:
    """One cell that was sent to a kernel.

    Args:
        client: The front end's connection.
        code: The cell.
        answers: What the person answers when the cell asks for input.
    """

    def __init__(self, client: BlockingKernelClient, code: str, answers: tuple[str, ...]) -> None:
        self._client = client
        self._answers = list(answers)
        self.prompts: list[tuple[str, bool]] = []
        self.messages: list[dict[str, Any]] = []
        self.ran = Ran()
        self._id = client.execute(code, allow_stdin=bool(answers), stop_on_error=False)

    def wait_for(self, wanted: Callable[[Ran], object]) -> RunningCell:
        """Receive output until it has what is wanted; the cell must not end before."""
        while not wanted(self.ran):
            assert self._receive(), f"the cell ended with {self.ran.outputs}"
        return self

    def finish(self) -> Ran:
        """Receive output until the cell ends."""
        while self._receive():
            pass
        return self.ran

    def _receive(self) -> bool:
        deadline = time.monotonic() + SECONDS
        while not self._client.iopub_channel.msg_ready():
            self._answer()
            assert time.monotonic() < deadline, f"nothing came for {SECONDS:g} s after {self.ran.outputs}"
            self._client.iopub_channel.socket.poll(50)
        message = self._client.get_iopub_msg(timeout=1)
        if message["parent_header"].get("msg_id") != self._id:
            return True
        kind = message["msg_type"]
        self.messages.append(message)
        if kind in {"stream", "display_data", "execute_result", "error"}:
            self.ran.outputs.append(output_from_msg(message))  # type: ignore[no-untyped-call]
        return not (kind == "status" and message["content"]["execution_state"] == "idle")

    def _answer(self) -> None:
        if self._client.stdin_channel.msg_ready():
            asked = self._client.get_stdin_msg(timeout=1)["content"]
            self.prompts.append((asked["prompt"], asked["password"]))
            self._client.input(self._answers.pop(0))


class Kernel:
    """A kernel in a process of its own, with the extension loaded.

    Args:
        environment: Its environment, besides this process's.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._closed = False
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(env={**os.environ, **environment})
        self.client: BlockingKernelClient = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=SECONDS)
        assert self.run("%load_ext codemode_kernel").error is None

    def start(self, code: str, *answers: str) -> RunningCell:
        """Send a cell and return at once."""
        return RunningCell(self.client, code, answers)

    def run(self, code: str, *answers: str) -> Ran:
        """Run a cell to its end."""
        return self.start(code, *answers).finish()

    def check(self, code: str) -> Ran:
        """Run a cell that must not fail."""
        ran = self.run(code)
        assert ran.error is None, ran.traceback
        assert "UsageError" not in ran.text("stderr")
        return ran

    def run_beside(self, code: str) -> None:
        """Run code in a subshell, on a thread of its own, while a cell runs."""
        client = self.client
        client.control_channel.send(client.session.msg("create_subshell_request"))
        reply = client.get_control_msg(timeout=SECONDS)
        message = client.session.msg("execute_request", {"code": code, "silent": False})
        message["header"]["subshell_id"] = reply["content"]["subshell_id"]
        client.shell_channel.send(message)

    def interrupt(self) -> None:
        """Interrupt the running cell, as the button does."""
        self.manager.interrupt_kernel()

    def close(self, *, now: bool = False) -> None:
        """Shut it down as a front end does, or kill it; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self.client.stop_channels()
            self.manager.shutdown_kernel(now=now)


@pytest.fixture(scope="session", autouse=True)
def kernel_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kernels of this very environment, which nobody's own settings configure."""
    with pytest.MonkeyPatch.context() as patch:
        # The kernel specification of the virtual environment comes before one of the user's.
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.setenv("MPLBACKEND", "agg")
        for name in [name for name in os.environ if name.startswith("CODEMODE_EXECUTOR_")]:
            patch.delenv(name)
        yield


StartKernel = Callable[..., Kernel]


@pytest.fixture
def start_kernel() -> Iterator[StartKernel]:
    """Start a kernel for one test."""
    started: list[Kernel] = []

    def start(backend: str = "bubblewrap", **environment: str) -> Kernel:
        started.append(Kernel({"CODEMODE_BACKEND": backend, **environment}))
        return started[-1]

    yield start
    for kernel in started:
        kernel.close()


@pytest.fixture(scope="module", params=["bubblewrap", "docker"])
def sandbox_backend(request: pytest.FixtureRequest) -> str:
    """Each kind of sandbox that this machine has."""
    backend: str = request.param
    if backend == "docker":
        request.getfixturevalue("engine")
    return backend


@pytest.fixture(scope="module")
def kernel(sandbox_backend: str) -> Iterator[Kernel]:
    """A kernel that the tests of a module share, on each kind of sandbox."""
    kernel = Kernel({"CODEMODE_BACKEND": sandbox_backend})
    yield kernel
    kernel.close()


@pytest.fixture(scope="module")
def notebook() -> Iterator[Kernel]:
    """A kernel that the tests of a module share, where the kind of sandbox makes no difference."""
    kernel = Kernel({"CODEMODE_BACKEND": "bubblewrap"})
    yield kernel
    kernel.close()
