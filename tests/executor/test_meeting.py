"""A supervisor lets the executor in where it listens, and nobody else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import codemode_sandbox
import pytest
from codemode_sandbox.frames import LinkKind, pack_link
from codemode_sandbox.meeting import WELCOME

FOLDER = Path(codemode_sandbox.__file__).parent.parent
PROGRAM = """
import sys
sys.path.append({folder!r})
from codemode_sandbox.meeting import meet
met = meet({path!r}, {uid})
print(met, flush=True)
"""


class Listening:
    """A process that waits to be met, and says then over its output whether it was."""

    def __init__(self, path: Path, uid: int) -> None:
        self.path = path
        self.stream, theirs = socket.socketpair()
        self.stream.settimeout(10)
        program = textwrap.dedent(PROGRAM).format(folder=str(FOLDER), path=str(path), uid=uid)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", program], stdin=theirs.fileno(), stdout=theirs.fileno()
            )
        assert self.stream.recv(100) == pack_link(LinkKind.LISTENING)

    def connect(self) -> socket.socket:
        direct = socket.socket(socket.AF_UNIX)
        direct.settimeout(10)
        direct.connect(str(self.path))
        return direct

    def close(self) -> None:
        self.stream.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Listening]:
    one = Listening(tmp_path / "link", os.geteuid())
    yield one
    one.close()


def test_the_executor_is_welcomed_and_spoken_to_where_it_came_in(listening: Listening) -> None:
    with listening.connect() as direct:
        assert direct.recv(len(WELCOME)) == WELCOME
        assert direct.recv(100) == b"True\n"
    assert listening.stream.recv(100) == b""
    assert not listening.path.exists()


def test_who_is_told_to_stay_goes_on_over_the_stream(listening: Listening) -> None:
    listening.stream.sendall(pack_link(LinkKind.STAY))
    assert listening.stream.recv(100) == b"False\n"
    assert not listening.path.exists()


def test_the_end_of_the_stream_ends_the_wait(listening: Listening) -> None:
    listening.stream.shutdown(socket.SHUT_WR)
    assert listening.stream.recv(100) == b"False\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_let_in_and_the_executor_still_is() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        listening = Listening(folder / "link", os.geteuid())
        try:
            # Its mode alone would keep others out.
            listening.path.chmod(0o666)
            child = os.fork()
            if child == 0:
                os.setuid(65534)
                with suppress(OSError), listening.connect() as direct:
                    os._exit(len(direct.recv(100)))
                os._exit(99)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            with listening.connect() as direct:
                assert direct.recv(len(WELCOME)) == WELCOME
        finally:
            listening.close()
