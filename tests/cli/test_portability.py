"""What has to be importable on macOS and Windows asks for no module that only Unix has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from codemode import ExecutorClient
from codemode.errors import AuthenticationError
from codemode.local import LocalExecutor
from tests.conftest import BACKEND

# Our modules may not have these; the standard library and other packages know what system they are on.
PROGRAM = """
import builtins, sys

original = builtins.__import__

def refuse(name, given=None, *rest, **more):
    importer = (given or {}).get("__name__", "")
    if importer.partition(".")[0].startswith("codemode"):
        if name in ("fcntl", "grp", "pwd", "resource", "termios"):
            raise ImportError(f"{importer} needs {name}")
        if name == "codemode_executor.backends.bubblewrap":
            raise ImportError(f"{importer} needs bubblewrap")
    return original(name, given, *rest, **more)

builtins.__import__ = refuse
"""


@pytest.mark.parametrize(
    "modules",
    [
        "codemode_executor.server, codemode_executor.cli, codemode_executor.metrics",
        "codemode_executor.backends.docker, codemode_executor.backends.docker_stream",
        "codemode_executor.doctor, codemode_executor.machine, codemode_executor.image",
        "codemode, codemode.cli, codemode.local",
        "codemode.core.facade, codemode.core.session, codemode.wire.loop",
    ],
)
def test_it_imports_without_unix(modules: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{PROGRAM}\nimport {modules}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_executor_lease_can_be_held_without_file_locks() -> None:
    program = (
        f"{PROGRAM}\n"
        "from codemode_executor.backends.liveness import Lease, is_orphan\n"
        "lease = Lease()\n"
        "assert not is_orphan(lease.labels)\n"
        "lease.release()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_where_grpc_has_no_unix_sockets_an_executor_of_ones_own_listens_on_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        executor = LocalExecutor(BACKEND, warm=0)
    try:
        assert executor.url.startswith("http://127.0.0.1:")
        with ExecutorClient(executor.url, executor.api_key) as client:
            assert client.execute("1 + 1", None, {}).result == "2"
        with ExecutorClient(executor.url, "another key") as stranger, pytest.raises(AuthenticationError):
            stranger.execute("1 + 1", None, {})
    finally:
        executor.close()


def test_the_sdk_never_imports_the_executor() -> None:
    program = (
        "import sys, codemode, codemode.cli, codemode.local, codemode.core.facade, codemode.core.session\n"
        "assert not [name for name in sys.modules if name.startswith(('codemode_executor', 'docker'))]"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
