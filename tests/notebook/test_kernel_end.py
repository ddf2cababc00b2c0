"""What a notebook started ends with its kernel, however that ends."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import docker
import psutil  # type: ignore[import-untyped]  # a dependency of ipykernel
import pytest
from docker.errors import DockerException

if TYPE_CHECKING:
    from tests.notebook.conftest import Kernel, StartKernel

SECONDS = 20.0


def started_by(kernel: Kernel) -> list[psutil.Process]:
    """The executor and all that it started."""
    match = re.search(r"process (\d+)", kernel.check("%codemode status").text())
    assert match is not None
    executor = psutil.Process(int(match[1]))
    return [executor, *executor.children(recursive=True)]


def wait_until_gone(processes: list[psutil.Process]) -> None:
    # A process whose parent is dead may stay a zombie where nobody collects it, as in some containers.
    deadline = time.monotonic() + SECONDS
    while alive := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, f"still there: {alive}"
        psutil.wait_procs(alive, timeout=0.1)


def leave(kernel: Kernel) -> None:
    kernel.check("exit()")


def shut_down(kernel: Kernel) -> None:
    kernel.close()


def restart(kernel: Kernel) -> None:
    kernel.manager.restart_kernel()


def kill(kernel: Kernel) -> None:
    kernel.close(now=True)


def unload(kernel: Kernel) -> None:
    kernel.check("%unload_ext codemode_kernel")
    assert "not found" in kernel.run("%codemode status").text("stderr")
    kernel.check("%load_ext codemode_kernel")


@pytest.mark.parametrize("end", [shut_down, restart, kill, leave, unload])
def test_no_executor_and_no_sandbox_is_left(start_kernel: StartKernel, end: Callable[[Kernel], None]) -> None:
    kernel = start_kernel()
    kernel.check("%%codemode\nimport subprocess\nsubprocess.Popen(['sleep', '1000']);")
    processes = started_by(kernel)
    assert len(processes) > 2
    end(kernel)
    wait_until_gone(processes)


def test_no_container_is_left(start_kernel: StartKernel, engine: docker.DockerClient) -> None:
    kernel = start_kernel("docker")
    kernel.check("%%codemode\n1")
    processes = started_by(kernel)
    match = re.search(r"^sandbox +(\w+)$", kernel.check("%codemode status").text(), re.MULTILINE)
    assert match is not None
    assert engine.containers.get(match[1]).status == "running"
    shut_down(kernel)
    wait_until_gone(processes)
    with pytest.raises(DockerException):
        engine.containers.get(match[1])


def test_a_fork_of_the_kernel_leaves_the_session_alone(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    kernel.check("%%codemode\nkept = 1")
    kernel.check(
        "import os, codemode_kernel.magics as magics\nchild = os.fork()\nif child == 0:\n"
        "    magics.require_magics().session.close()\n    os._exit(0)\nos.waitpid(child, 0);"
    )
    assert kernel.check("%%codemode\nkept").value == "1"


def test_nothing_is_started_before_the_first_cell(start_kernel: StartKernel) -> None:
    kernel = start_kernel()
    kernel.check("%codemode context client_id=acme")
    kernel.check("%codemode tools")
    kernel.check("%codemode reset")
    assert kernel.check("import psutil\npsutil.Process().children()").value == "[]"
