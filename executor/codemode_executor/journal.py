"""What the executor remembers of executions, so that a retry runs nothing twice."""

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from codemode_proto.v1 import executor_pb2 as pb

from codemode_executor.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OutcomeForgottenError,
    OverloadedError,
)
from codemode_executor.execution import Execution
from codemode_executor.owner import Owner

Key: TypeAlias = tuple[Owner, str]
_HEX = frozenset("0123456789abcdef")


def check_identifier(value: str, name: str) -> None:
    """Raise InvalidRequestError unless `value` is 32 lower-case hexadecimal digits."""
    if len(value) != 32 or not _HEX.issuperset(value):
        raise InvalidRequestError(f"{name}: 32 lower-case hexadecimal digits (128 random bits) are wanted")


def digest_of(start: pb.Start) -> bytes:
    """A digest of everything that makes a request what it is; how often it was tried does not."""
    request = pb.Start()
    request.CopyFrom(start)
    request.last_event = 0
    request.attach_only = False
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()


class Forgotten(NamedTuple):
    """An execution that ended and whose events were dropped.

    Attributes:
        digest: Of the request.
        ended_at: When it ended, on the monotonic clock.
    """

    digest: bytes
    ended_at: float


class Journal:
    """Executions by owner and `execution_id`, bounded in count, bytes and age.

    Only executions that have ended are forgotten, the oldest first; when those
    that run alone fill it, new ones are refused.

    Args:
        max_entries: Most executions remembered.
        max_bytes: Most bytes of events remembered, over all executions.
        max_age: Seconds after its end that an execution is remembered.
    """

    def __init__(self, max_entries: int, max_bytes: int, max_age: float) -> None:
        self._entries: dict[Key, Execution | Forgotten] = {}
        # Those that have ended, in that order; before them, those whose outcome is forgotten.
        self._ended: deque[tuple[Key, Execution]] = deque()
        self._forgotten: deque[tuple[Key, Forgotten]] = deque()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._max_age = max_age

    def __len__(self) -> int:
        return len(self._entries)

    def find_or_add(
        self, owner: Owner, start: pb.Start, make: Callable[[], Execution]
    ) -> tuple[Execution, bool]:
        """The execution of this identity, and whether it is new.

        Args:
            owner: Who asks; another owner's execution of the same id is another execution.
            start: The request.
            make: Makes the execution when there is none.

        Raises:
            InvalidRequestError: The id is no id.
            NotFoundError: There is none, and it shall not be begun.
            ConflictError: The id was used for another request.
            OutcomeForgottenError: It ended, and its outcome had to be dropped since.
            OverloadedError: Too many executions run.
        """
        check_identifier(start.execution_id, "execution_id")
        key = (owner, start.execution_id)
        found = self._entries.get(key)
        digest = digest_of(start)
        if found is not None:
            if found.digest != digest:
                raise ConflictError(
                    "execution_id: it was used for a different request; every new execution needs a new one"
                )
            if isinstance(found, Forgotten):
                raise OutcomeForgottenError(
                    f"execution_id: the execution ended, but its outcome was dropped to stay within "
                    f"journal_bytes={self._max_bytes:,}"
                )
            return found, False
        if start.attach_only:
            raise NotFoundError(
                "execution_id: this executor does not know the execution; "
                "it ran on one that was stopped, or never"
            )
        self._forget()
        if len(self._entries) >= self._max_entries:
            raise OverloadedError(
                f"journal_entries: {self._max_entries:,} executions are running, the most there may be",
                retry_after_ms=1000,
            )
        execution = make()
        execution.digest = digest
        self._entries[key] = execution
        execution.ended.add_done_callback(lambda _: self._note_end(key, execution))
        return execution, True

    def _note_end(self, key: Key, execution: Execution) -> None:
        self._bytes += execution.log.size
        self._ended.append((key, execution))
        if self._timer is None:
            self._forget_later(execution.ended.get_loop())

    def _forget_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """Outputs must not stay for ever where nobody begins anything new."""

        def forget() -> None:
            self._timer = None
            self._forget()
            if self._ended or self._forgotten:
                self._forget_later(loop)

        self._timer = loop.call_later(self._max_age, forget)

    def drop(self, owner: Owner, execution: Execution) -> None:
        """Forget an execution that was refused before anything ran, so that a retry may run it."""
        self._entries.pop((owner, execution.execution_id), None)

    def running(self) -> list[Execution]:
        """The executions that have not ended."""
        return [
            entry for entry in self._entries.values() if isinstance(entry, Execution) and not entry.finished
        ]

    def _forget(self) -> None:
        """Drop what is too old, or too much, the oldest first."""
        while self._bytes > self._max_bytes and self._ended:
            key, execution = self._ended.popleft()
            self._bytes -= execution.log.size
            if self._entries.get(key) is execution:
                # That it ran is remembered, or a retry that comes late would run it again.
                self._entries[key] = forgotten = Forgotten(execution.digest, execution.ended_at)
                self._forgotten.append((key, forgotten))
        oldest_possible = time.monotonic() - self._max_age
        for known in (self._forgotten, self._ended):
            while known:
                key, entry = known[0]
                if entry.ended_at > oldest_possible and len(self._entries) < self._max_entries:
                    return
                known.popleft()
                if isinstance(entry, Execution):
                    self._bytes -= entry.log.size
                # It may have been refused, and the id be in use for a retry.
                if self._entries.get(key) is entry:
                    del self._entries[key]
