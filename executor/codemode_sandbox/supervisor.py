"""Process 1 of a sandbox: passes bytes between the executor and interpreters, and buries the dead.

It runs no user code and reads nothing that user code wrote, so what it says
(an interpreter ended, memory ran out, the sandbox is clean) can be believed
even when everything else in the sandbox is hostile. A forked interpreter is
always waiting: a stateless execution costs the executor no fork before it and
a reset after it; a session is the same interpreter, used again and again.
"""

import json
import os
import platform
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from codemode_sandbox import kernel_memory, linux, meeting, oom, processes, watch, wipe
from codemode_sandbox.frames import (
    INTERPRETER_CHANNEL,
    LinkFrame,
    LinkKind,
    LinkReader,
    pack_data,
    pack_link,
)
from codemode_sandbox.processes import Child
from codemode_sandbox.settings import Settings

LINK_IN, LINK_OUT = 0, 1
READ_SIZE = 1 << 18
# Orphans of a session are reaped at least this often, in seconds.
REAP_INTERVAL = 1.0


class Supervisor:
    """The event loop of process 1.

    Args:
        settings: What the executor said when it started the sandbox.
        started: `time.monotonic()` when the process began, for the boot time it reports.
    """

    def __init__(self, settings: Settings, started: float) -> None:
        self._settings = settings
        self._started = started
        self._reader = LinkReader()
        # Before `_prepare`, which makes this process one that nobody can come to.
        self._met = bool(settings.meet_at) and meeting.meet(settings.meet_at, settings.meet_uid)
        self._null = processes.reserve_descriptors()
        self._epoll = select.epoll()
        self._round_due = 0.0
        self._children: dict[int, Child] = {}
        self._by_descriptor: dict[int, Child] = {}
        self._pristine: dict[str, list[tuple[object, ...]]] = {}
        self._fonts = list(Path(settings.font_cache).glob("*.json")) if settings.font_cache else []
        self._memory = (
            watch.MemoryWatch(settings.memory_bytes, settings.wipe) if settings.memory_bytes else None
        )
        watched = (settings.memory_bytes, settings.network_bytes, settings.tmp_inodes)
        self._watched = any(bound is not None for bound in watched)

    def run(self) -> int | None:
        """Serve until the executor closes the link.

        Returns:
            None when the link is closed. In a forked process, the number of
            its channel: the caller becomes what that channel is for. Forking
            unwinds to the caller so that user code runs above no frame of the
            supervisor.
        """
        self._prepare()
        self._standing = self._stands()
        if self._fork(INTERPRETER_CHANNEL):
            return INTERPRETER_CHANNEL
        self._say(LinkKind.READY, 0, self._describe())
        self._epoll.register(LINK_IN, select.EPOLLIN)
        while True:
            events = self._epoll.poll(self._wait_seconds())
            now = time.monotonic()
            if now >= self._round_due:
                self._make_round(now)
            link_readable = False
            # Pipes before sockets: what a process printed through a descriptor before it sent a message
            # is shown before that message.
            for descriptor, _ in events:
                if descriptor == LINK_IN:
                    link_readable = True
                elif (
                    child := self._by_descriptor.get(descriptor)
                ) is not None and descriptor in child.output:
                    self._pass_output(child, descriptor)
            for descriptor, mask in events:
                child = self._by_descriptor.get(descriptor)
                if child is None or descriptor in child.output:
                    continue
                if descriptor == child.pidfd:
                    self._bury()
                else:
                    self._serve_socket(child, mask)
            if link_readable:
                data = os.read(LINK_IN, READ_SIZE)
                if not data:
                    processes.kill_everything()
                    return None
                for frame in self._reader.feed(data):
                    channel = self._obey(frame)
                    if channel is not None:
                        return channel

    def _prepare(self) -> None:
        processes.adopt_orphans()
        # No handler of ours, so process 1 cannot be signalled from inside at all.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if os.getpid() != 1 else signal.SIG_DFL)
        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        linux.set_process_name("supervisor")
        processes.apply_limits(self._settings)
        self._make_places()

    def _stands(self) -> list[tuple[object, ...]]:
        """What code can change about this process and the writable places, and a reset cannot mend."""
        places = [wipe.marks(path) for path in self._settings.wipe if Path(path).is_dir()]
        return [processes.standing(), *places]

    def _untouched(self) -> bool:
        """Whether the writable places are as `_make_places` left them, which is most often so."""
        try:
            return all(wipe.listing(path) == known for path, known in self._pristine.items())
        except OSError:
            return False

    def _make_places(self) -> None:
        for path in (self._settings.work, self._settings.home):
            Path(path).mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._fonts:
            # matplotlib wants a cache it can write to, and takes a second to make the list anew.
            cache = Path(self._settings.home, ".cache", "matplotlib")
            cache.mkdir(parents=True)
            for font_list in self._fonts:
                cache.joinpath(font_list.name).symlink_to(font_list)
        watched = [*self._settings.wipe, self._settings.work, self._settings.home]
        if self._fonts:
            watched += [str(cache.parent), str(cache)]
        self._pristine = {path: wipe.listing(path) for path in watched if Path(path).is_dir()}

    def _describe(self) -> dict[str, Any]:
        status = dict(
            line.split(":\t", 1)
            for line in Path("/proc/self/status").read_text().splitlines()
            if ":\t" in line
        )
        return {
            "python": platform.python_version(),
            "pid": os.getpid(),
            "link": "direct" if self._met else "stream",
            "boot_ms": round((time.monotonic() - self._started) * 1000, 1),
            "seccomp": status.get("Seccomp", "0").strip(),
            "no_new_privileges": status.get("NoNewPrivs", "0").strip(),
            "capabilities": status.get("CapEff", "").strip(),
            "preloaded": [name for name in self._settings.preload if name in sys.modules],
        }

    def _wait_seconds(self) -> float:
        if not any(child.used for child in self._children.values()):
            return -1
        return max(0.0, self._round_due - time.monotonic())

    def _make_round(self, now: float) -> None:
        """What is done every so often while code may run, and not for every frame."""
        self._bury()
        if self._watched:
            self._enforce()
        self._round_due = now + (watch.INTERVAL if self._watched else REAP_INTERVAL)

    # --- what the executor asks ---------------------------------------------------------

    def _obey(self, frame: LinkFrame) -> int | None:
        if frame.kind == LinkKind.DATA:
            if (child := self._children.get(frame.channel)) is not None:
                self._send(child, frame.payload)
        elif frame.kind == LinkKind.INTERRUPT:
            if (child := self._children.get(frame.channel)) is not None:
                signal.pidfd_send_signal(child.pidfd, signal.SIGINT)
        elif frame.kind == LinkKind.CLOSE:
            if (child := self._children.get(frame.channel)) is not None:
                # The process sees the end of its channel, and has a moment to remove what is half written.
                with suppress(OSError):
                    child.sock.shutdown(socket.SHUT_RDWR)
        elif frame.kind == LinkKind.OPEN:
            try:
                if self._fork(frame.channel):
                    return frame.channel
            except OSError:
                # The code has used up the processes, or the memory.
                self._say(LinkKind.EXITED, frame.channel, {"exit_code": 1, "killed_for": "processes"})
        elif frame.kind == LinkKind.RESET:
            self._reset(frame.payload)
            if self._fork(INTERPRETER_CHANNEL):
                return INTERPRETER_CHANNEL
        return None

    def _fork(self, channel: int) -> bool:
        others = [child.sock for child in self._children.values()]
        child = processes.fork_child(channel, self._settings, self._null, self._epoll, others)
        if child is None:
            return True
        self._children[channel] = child
        for descriptor in (child.sock.fileno(), child.pidfd, *child.output):
            self._by_descriptor[descriptor] = child
            self._epoll.register(descriptor, select.EPOLLIN)
        return False

    def _reset(self, token: bytes) -> None:
        processes.kill_everything()
        for child in list(self._children.values()):
            self._forget(child)
        clean = self._untouched()
        if not clean:
            # Every one of them, also when one fails.
            emptied = [wipe.empty_directory(path) for path in self._settings.wipe]
            clean = all(emptied)
            if clean:
                self._make_places()
        # Code may lower the limits and the priority of every process of its user, and forks inherit them.
        clean = clean and self._stands() == self._standing
        # So that the next interpreter is not told of them.
        oom.new_kills()
        # Before the next fork: the executor need not wait for it.
        self._say(LinkKind.CLEAN, 0, {"token": token.decode("ascii", "replace"), "clean": clean})

    # --- bytes --------------------------------------------------------------------------

    def _say(self, kind: LinkKind, channel: int, words: dict[str, Any]) -> None:
        _write_all(pack_link(kind, channel, json.dumps(words).encode()))

    def _pass_output(self, child: Child, descriptor: int) -> None:
        kind = LinkKind.STDOUT if descriptor == child.output[0] else LinkKind.STDERR
        with suppress(BlockingIOError):
            data = os.read(descriptor, READ_SIZE)
            if data:
                _write_all(pack_link(kind, child.channel, data))
            else:
                self._unwatch(descriptor)

    def _serve_socket(self, child: Child, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._flush(child)
        if mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            try:
                data = child.sock.recv(READ_SIZE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                _write_all(pack_data(child.channel, data))
            else:
                self._unwatch(child.sock.fileno())

    def _send(self, child: Child, data: bytes) -> None:
        child.used = True
        child.unsent.append(memoryview(data))
        if len(child.unsent) == 1:
            self._flush(child)

    def _flush(self, child: Child) -> None:
        descriptor = child.sock.fileno()
        while child.unsent:
            try:
                sent = child.sock.send(child.unsent[0])
            except BlockingIOError:
                self._epoll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError:
                # It ended or closed its channel; the executor learns of the end from EXITED.
                child.unsent.clear()
                break
            if sent == len(child.unsent[0]):
                child.unsent.popleft()
            else:
                child.unsent[0] = child.unsent[0][sent:]
        if descriptor in self._by_descriptor:
            self._epoll.modify(descriptor, select.EPOLLIN)

    # --- the dead -----------------------------------------------------------------------

    def _bury(self) -> None:
        """Reap what has ended, and say so of the processes that have a channel."""
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in list(self._children.values()):
                if child.pid == pid:
                    self._announce_end(child, os.waitstatus_to_exitcode(status), None)

    def _announce_end(self, child: Child, exit_code: int, killed_for: str | None) -> None:
        for descriptor in child.output:
            self._drain(child, descriptor)
        with suppress(OSError):
            # Bounded for the same reason as in `_drain`.
            for _ in range(4):
                if data := child.sock.recv(READ_SIZE, socket.MSG_DONTWAIT):
                    _write_all(pack_data(child.channel, data))
        if oom.new_kills() and exit_code < 0:
            killed_for = killed_for or "memory_bytes"
        self._forget(child)
        self._say(LinkKind.EXITED, child.channel, {"exit_code": exit_code, "killed_for": killed_for})

    def _drain(self, child: Child, descriptor: int) -> None:
        kind = LinkKind.STDOUT if descriptor == child.output[0] else LinkKind.STDERR
        # A process it left behind may write for ever, so no more than a pipe holds.
        for _ in range(4):
            try:
                data = os.read(descriptor, READ_SIZE)
            except OSError:
                return
            if not data:
                return
            _write_all(pack_link(kind, child.channel, data))

    def _enforce(self) -> None:
        if not any(child.used for child in self._children.values()):
            return
        settings = self._settings
        exceeded = None
        if self._memory is not None and settings.memory_bytes is not None:
            used = self._memory.bytes_in_use()
            exceeded = "memory_bytes" if used > settings.memory_bytes else None
        elif settings.network_bytes is not None and kernel_memory.network_bytes() > settings.network_bytes:
            exceeded = "memory_bytes"
        if settings.tmp_inodes is not None and watch.inodes_in_use(settings.wipe) > settings.tmp_inodes:
            exceeded = "tmp_inodes"
        if exceeded is not None:
            processes.kill_everything()
            for child in list(self._children.values()):
                self._announce_end(child, -signal.SIGKILL, exceeded)

    def _forget(self, child: Child) -> None:
        for descriptor in (child.sock.fileno(), child.pidfd, *child.output):
            self._unwatch(descriptor)
        child.close()
        self._children.pop(child.channel, None)

    def _unwatch(self, descriptor: int) -> None:
        if self._by_descriptor.pop(descriptor, None) is not None:
            with suppress(OSError):
                self._epoll.unregister(descriptor)


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(LINK_OUT, view) :]
