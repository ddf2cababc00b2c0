"""An executor of one's own: a child process on a private socket, which ends with its parent."""

from __future__ import annotations

import atexit
import os
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

from codemode.errors import ExecutorConnectionError

START_SECONDS = 60.0


class LocalExecutor:
    """Starts `codemode-executor serve` and knows how to reach it.

    Args:
        backend: ``auto``, ``docker`` or ``bubblewrap``.
        options: Further options of `codemode-executor serve`, by name without dashes, such as ``warm``.

    Raises:
        ExecutorConnectionError: It did not start; the message is its own last words.
    """

    def __init__(self, backend: str = "auto", **options: object) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="codemode-"))
        self.api_key = secrets.token_urlsafe(32)
        # gRPC has no Unix sockets on Windows.
        listen = "127.0.0.1:0" if sys.platform == "win32" else f"unix:{self._folder / 'executor.sock'}"
        arguments = [option for name, value in options.items() for option in _option(name, value)]
        # Without a name, so that nothing but the socket is in the folder, and its executor can remove both.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the executor lives
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [
                sys.executable,
                *("-m", "codemode_executor.cli", "serve"),
                *("--listen", listen, "--backend", backend, "--log-level", "warning"),
                # The pipe is closed by the kernel when this process ends, however it ends.
                *("--parent-fd", "0"),
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "CODEMODE_EXECUTOR_API_KEY": self.api_key},
            # Ctrl-C in a terminal is for the caller, who interrupts the code and keeps the executor.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._parent = os.getpid()
        self._closing = threading.Lock()
        atexit.register(self.close)
        try:
            address = self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        self.url = address if address.startswith("unix:") else f"http://{address}"

    @property
    def pid(self) -> int:
        """Process id of the executor."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def _wait_until_ready(self) -> str:
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        assert self._process.stdout is not None
        threading.Thread(target=_read_line, args=(self._process.stdout, lines), daemon=True).start()
        try:
            line = lines.get(timeout=START_SECONDS)
        except queue.Empty:
            raise ExecutorConnectionError(
                f"the local executor was not ready within {START_SECONDS:g} s"
            ) from None
        word, _, address = line.strip().partition(" ")
        if word != "ready":
            self._process.wait(timeout=5)
            raise ExecutorConnectionError(f"the local executor did not start. {self._last_words()}")
        return address

    def _last_words(self) -> str:
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace").strip()
        return said.removeprefix("codemode-executor: ")[-2000:] or "It said nothing."

    def close(self) -> None:
        """Stop it, with all its sandboxes; does nothing when called again, or in a forked process."""
        if os.getpid() != self._parent:
            return
        with self._closing:
            atexit.unregister(self.close)
            if self._process.stdin is not None and not self._process.stdin.closed:
                # Closing its standard input tells it to stop, on every system.
                with suppress(OSError):
                    self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._log.close()
            shutil.rmtree(self._folder, ignore_errors=True)


def _option(name: str, value: object) -> list[str]:
    flag = name.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return [f"--{flag}={value}"]


def _read_line(stream: IO[bytes], lines: queue.SimpleQueue[str]) -> None:
    with suppress(ValueError, OSError):
        lines.put(stream.readline().decode("utf-8", "replace"))
