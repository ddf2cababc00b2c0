"""The Docker Engine itself stopped and started, below an executor that runs.

This ends every container of the machine's engine. It runs where it is allowed by the variable
CODEMODE_TESTS_RESTART_ENGINE, as in continuous integration, and on its own.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from codemode.local import LocalExecutor
from tests.executor.test_docker import Sandboxes, an_engine_away

if TYPE_CHECKING:
    import docker

    from tests.conftest import MakeClient

PID_FILE = Path("/var/run/docker.pid")

pytestmark = pytest.mark.skipif(
    not os.environ.get("CODEMODE_TESTS_RESTART_ENGINE"),
    reason="it would end every container of this machine; CODEMODE_TESTS_RESTART_ENGINE=1 allows it",
)


class Engine:
    """The engine's process, as it was started."""

    def __init__(self) -> None:
        self._pid = int(PID_FILE.read_text())
        self._command = Path(f"/proc/{self._pid}/cmdline").read_bytes().decode().split("\0")[:-1]

    def stop(self) -> None:
        watched = os.pidfd_open(self._pid)
        os.kill(self._pid, signal.SIGTERM)
        # A child of another process, so that it can be watched and not waited for.
        assert _ends(watched, 60)

    def start(self) -> None:
        # Not as a child of this process, because it goes on when this one has ended.
        subprocess.run(
            ["setsid", "--fork", *self._command],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while subprocess.run(["docker", "version"], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def _ends(watched: int, seconds: float) -> bool:
    try:
        return bool(select.select([watched], [], [], seconds)[0])
    finally:
        os.close(watched)


def test_an_engine_that_is_stopped_is_a_clear_error_and_all_is_well_when_it_is_started_again(
    engine: docker.DockerClient, sandbox_image: str, connect: MakeClient
) -> None:
    sandboxes, process = Sandboxes(engine), Engine()
    executor = LocalExecutor("docker", warm=1)
    try:
        codemode = connect(executor)
        with an_engine_away(codemode, "Docker Engine") as check_errors:
            process.stop()
            try:
                check_errors()
                assert not codemode.ready_check()
            finally:
                process.start()
    finally:
        executor.close()
    assert sandboxes.gone(sandboxes.ours())
