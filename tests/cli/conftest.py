"""The commands as their users run them: as processes, with their output, exit codes and signals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from codemode import ClientConfig, Codemode

MODULES = {"codemode": "codemode.cli", "codemode-executor": "codemode_executor.cli"}

RunCommand = Callable[..., "subprocess.CompletedProcess[str]"]


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what a developer may have configured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CODEMODE_")}
    return kept | more


@pytest.fixture(scope="session")
def run_command() -> RunCommand:
    """Run `codemode` or `codemode-executor` to its end."""

    def run(
        name: str, *arguments: str, given: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", MODULES[name], *arguments],
            input=given,
            capture_output=True,
            text=True,
            env=clean_environment(**environment),
            timeout=60,
            check=False,
        )

    return run


class Serving:
    """A running `codemode-executor serve`, with what it wrote.

    Args:
        folder: For its socket and its log.
        arguments: More arguments.
        program: Instead of the module, a program that calls the command itself.
    """

    key = "a-key-of-the-tests-0123456789"

    def __init__(self, folder: Path, *arguments: str, program: str = "") -> None:
        self.log = folder / "log"
        self.parent_reads, self.parent_writes = os.pipe()
        start = ["-c", program] if program else ["-m", MODULES["codemode-executor"]]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, *start, "serve", "--listen", f"unix:{folder / 'socket'}"),
                    *("--backend", "bubblewrap", "--warm", "1", "--parent-fd", str(self.parent_reads)),
                    *arguments,
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=clean_environment(CODEMODE_EXECUTOR_API_KEY=self.key),
                pass_fds=[self.parent_reads],
            )
        assert self.process.stdout is not None
        word, _, self.url = self.process.stdout.readline().strip().partition(" ")
        if word != "ready":
            self.close()
            raise AssertionError(self.log.read_text())

    def lines(self) -> list[dict[str, Any]]:
        """The log; fails unless every line is a JSON object."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_for_line(self, message: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until a message was logged so often."""
        deadline = time.monotonic() + 10
        while len(found := [line for line in self.lines() if line["message"] == message]) < count:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return found

    def connect(self, key: str = "") -> Codemode:
        """A client of it."""
        config = ClientConfig(executor_url=self.url, executor_api_key=key or self.key)
        return Codemode(client_config=config)

    def close(self) -> None:
        """Stop it as its parent's end would; calling it again does nothing."""
        if self.parent_reads < 0:
            return
        os.close(self.parent_writes)
        os.close(self.parent_reads)
        self.parent_reads = -1
        self.process.wait(timeout=20)
        assert self.process.stdout is not None
        self.process.stdout.close()


Serve = Callable[..., Serving]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start `codemode-executor serve`; it is stopped after the test."""
    started: list[Serving] = []

    def start(*arguments: str, program: str = "") -> Serving:
        one = Serving(tmp_path, *arguments, program=program)
        started.append(one)
        return one

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """An executor that many tests use and none changes."""
    one = Serving(tmp_path_factory.mktemp("executor"))
    yield one
    one.close()
