"""Control groups of bubblewrap's sandboxes, on a machine that gives some, as it does to root."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from codemode_executor.backends.control_groups import ControlGroups

from codemode import Codemode
from tests.conftest import MakeClient, MakeExecutor, enforcement, unavailable


@pytest.fixture(autouse=True)
def groups_are_given() -> None:
    groups = ControlGroups.find()
    if groups is None:
        unavailable("this machine gives this user no control groups")
    groups.close()


def groups_of_executors() -> set[str]:
    """The names of all groups that executors have made and not removed."""
    return {path.name for path in Path("/sys/fs/cgroup").rglob("codemode-*") if path.is_dir()}


def test_they_bind_memory_processes_and_processors(start_executor: MakeExecutor, connect: MakeClient) -> None:
    bound = enforcement(connect(start_executor()))
    assert all("control group" in bound[name] for name in ("memory_bytes", "processes", "cpus"))


def test_they_go_with_their_executor(start_executor: MakeExecutor, connect: MakeClient) -> None:
    before = groups_of_executors()
    executor = start_executor()
    connect(executor).execute("1")
    assert groups_of_executors() > before
    executor.close()
    assert groups_of_executors() == before


def test_those_of_a_killed_executor_go_with_the_next(
    start_executor: MakeExecutor, connect: MakeClient
) -> None:
    before = groups_of_executors()
    executor = start_executor()
    connect(executor).execute("1")
    os.kill(executor.pid, signal.SIGKILL)
    executor.close()
    left = groups_of_executors() - before
    assert left
    start_executor()
    assert not groups_of_executors() & left


def test_a_process_that_the_kernel_ends_for_memory_is_no_mystery(codemode: Codemode) -> None:
    outcome = codemode.run(
        "kept = []\nimport mmap\nwhile True:\n"
        "    kept.append(mmap.mmap(-1, 8 << 20))\n    kept[-1].write(b'x' * (8 << 20))",
        limits={"memory_bytes": 128 << 20},
    )
    assert outcome.error_details is not None
    assert (outcome.error_details.type, outcome.error_details.limit) == ("OutOfMemoryError", "memory_bytes")


def test_an_operator_may_do_without(start_executor: MakeExecutor, connect: MakeClient) -> None:
    before = groups_of_executors()
    codemode = connect(start_executor(control_groups=False))
    assert codemode.execute("1 + 1") == "2"
    assert groups_of_executors() == before
    assert "watched" in enforcement(codemode)["memory_bytes"]
