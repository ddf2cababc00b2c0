"""An executor under attack: one owner attacks, another one's session goes on, and both are looked after.

Attacks go the way of every other code, through `Codemode.local`, and share one
executor for each backend, so that whatever an attack breaks, the next one finds.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from codemode import Codemode, ComponentRegistry
from codemode.results import ExecutionResult

# The slowest answer that still counts as undisturbed, on a machine as small and busy as those of CI.
BEARABLE_SECONDS = 3.0
# What one attack may make the executor's memory grow by. The largest message, and what the journal keeps of
# it, are in there several times.
GROWTH_BYTES = 400 << 20

_HEALTHY = """
import os
own = {"1", str(os.getpid())}
result = [
    6 * 7,
    context["client_id"],
    sorted(name for name in os.listdir("/proc") if name.isdigit() and name not in own),
    os.listdir("."),
    os.listdir("/dev/shm"),
    # IPython's own folder is there from the start.
    [name for name in os.listdir("/tmp") if name not in {"home", "work"} and not name.startswith("tmp")],
]
"""

ANY = "any"
SMALL_MEMORY: Mapping[str, float] = {"memory_bytes": 128 << 20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attack must end.

    Attributes:
        error: Type of the error; empty when the code must come through, `ANY` where all that
            matters is that nobody else suffers.
        limit: The limit that must have fired.
        notice: The limit that must have been reached without ending it.
        says: What the error's message must contain.
        result: What its result must be, if that matters.
        session: What must have become of its session, if it had one.
    """

    error: str = ""
    limit: str = ""
    notice: str = ""
    says: str = ""
    result: str | None = None
    session: Literal["none", "kept", "lost"] = "none"


OUT_OF_TIME = Outcome(error="TimeoutError", limit="timeout_seconds")
OUT_OF_MEMORY = Outcome(error="OutOfMemoryError", limit="memory_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """Hostile code and what must come of it.

    Attributes:
        name: What it does.
        code: The code.
        ends: How it must end.
        in_docker: How it must end there, if otherwise.
        timeout: Its `execution_timeout`.
        limits: Its other limits.
        tools: The tools it may call; None for all.
        in_session: Whether it runs in a session of its own.
        within: Seconds it may take until its result is there.
    """

    name: str
    code: str
    ends: Outcome
    in_docker: Outcome | None = None
    timeout: float = 5.0
    limits: Mapping[str, float] = field(default_factory=dict)
    tools: tuple[str, ...] | None = None
    in_session: bool = False
    within: float = 10.0

    def __str__(self) -> str:
        return self.name


class Bystander:
    """Another owner with a session, who runs a cell every so often."""

    def __init__(self, codemode: Codemode) -> None:
        codemode.with_context(client_id="bystander")
        self._session = codemode.session(limits={"cpus": 1}).open()
        self._session.execute("kept = ['mine']; turns = 0")
        self._turns = 0

    def take_turn(self) -> float:
        """Run a cell that depends on all before it; returns the seconds it took."""
        began = time.monotonic()
        self._turns += 1
        answer = self._session.run("turns += 1\nresult = [kept, turns]")
        assert answer.success, answer
        assert answer.value == [["mine"], self._turns]
        return time.monotonic() - began

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Take turns on another thread; on leaving, check that nothing was disturbed."""
        leave = threading.Event()
        slowest = self.take_turn()
        failures: list[BaseException] = []

        def go_on() -> None:
            nonlocal slowest
            try:
                while not leave.wait(0.05):
                    slowest = max(slowest, self.take_turn())
            except BaseException as failure:  # noqa: BLE001 - raised again on the test's thread
                failures.append(failure)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            leave.set()
            thread.join()
        if failures:
            raise failures[0]
        slowest = max(slowest, self.take_turn())
        assert slowest < BEARABLE_SECONDS

    def close(self) -> None:
        self._session.close()


class Arena:
    """One executor of one backend.

    Args:
        backend: ``docker`` or ``bubblewrap``.
        registry: The tools that attackers may call.
        settings: Further settings of the executor.
    """

    def __init__(self, backend: str, registry: ComponentRegistry, **settings: Any) -> None:
        self.backend = backend
        self.codemode = Codemode.local(
            registry=registry, backend=backend, interrupt_grace_seconds=0.5, max_sandboxes=8, **settings
        )
        self.bystander = Bystander(self.codemode)

    def attack(self, attack: Attack) -> ExecutionResult:
        """Run an attack to the end that it must come to, and check that nobody suffers from it."""
        with self.unharmed(attack.limits):
            began = time.monotonic()
            result = self.run(attack)
            assert time.monotonic() - began < attack.within
            ends = attack.in_docker if attack.in_docker and self.backend == "docker" else attack.ends
            check(result, ends)
        return result

    def run(self, attack: Attack) -> ExecutionResult:
        """Run an attack."""
        self.codemode.with_context(client_id="attacker")
        if not attack.in_session:
            return self.codemode.run(
                attack.code, tools=attack.tools, execution_timeout=attack.timeout, limits=attack.limits
            )
        with self.codemode.session(limits=attack.limits) as session:
            return session.run(attack.code, tools=attack.tools, execution_timeout=attack.timeout)

    @contextmanager
    def unharmed(self, limits: Mapping[str, float] | None = None) -> Iterator[None]:
        """Whatever happens inside: a bystander goes on, and the same owner's next execution is healthy."""
        before = self._memory("VmRSS")
        # Makes the kernel forget the peak.
        self._about("clear_refs").write_text("5")
        with self.bystander.going_on():
            yield
            self.check_health(limits)
        assert self._memory("VmHWM") - before < GROWTH_BYTES

    def _about(self, name: str) -> Path:
        assert self.codemode.local_executor is not None
        return Path(f"/proc/{self.codemode.local_executor.pid}/{name}")

    def _memory(self, field_name: str) -> int:
        """Bytes of memory that the executor's own process has, or has had at most."""
        fields = dict(line.split(":", 1) for line in self._about("status").read_text().splitlines())
        return int(fields[field_name].split()[0]) * 1024

    def check_health(self, limits: Mapping[str, float] | None = None) -> None:
        """The attacker's next execution works, in a sandbox in which nothing is left."""
        self.codemode.with_context(client_id="attacker")
        healthy = self.codemode.run(_HEALTHY, limits=limits or {}, execution_timeout=10)
        assert healthy.success, healthy.error
        assert healthy.value == [42, "attacker", [], [], [], []]

    def close(self) -> None:
        """Stop the executor."""
        self.bystander.close()
        self.codemode.close()


def check(result: ExecutionResult, ends: Outcome) -> None:
    """Compare a result with the outcome it must have."""
    if ends.error == ANY:
        return
    details = result.error_details
    found = (details.type, details.limit) if details is not None else ("", "")
    assert found == (ends.error, ends.limit), result.error
    assert ends.says in (result.error or "")
    assert [notice.limit for notice in result.notices] == ([ends.notice] if ends.notice else [])
    assert ends.result is None or result.result == ends.result
    assert result.session_state == ends.session
