"""Sessions: interpreters that keep their variables, each in a sandbox of its own."""

import asyncio
import contextlib
import secrets
import time
from dataclasses import dataclass, field

from codemode_proto.v1 import executor_pb2 as pb

from codemode_executor.errors import ForbiddenError, NotFoundError, SessionLostError
from codemode_executor.journal import check_identifier
from codemode_executor.limits import Limits
from codemode_executor.owner import Owner
from codemode_executor.pool import Lease, Pool

# Why a session was lost is told for this many sessions after it.
MAX_EPITAPHS = 1000


@dataclass(eq=False, slots=True)
class Session:
    """One open session.

    Attributes:
        session_id: Its identity, chosen by the caller.
        owner: Whose it is.
        limits: The limits it was opened with.
        lease: Its sandbox.
        turn: Held by whatever uses its interpreter.
        used_at: When it was last used, on the monotonic clock.
    """

    session_id: str
    owner: Owner
    limits: Limits
    lease: Lease
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    used_at: float = field(default_factory=time.monotonic)

    def to_proto(self) -> pb.Session:
        """The session as callers see it."""
        sandbox = self.lease.sandbox
        return pb.Session(
            session_id=self.session_id,
            backend=sandbox.backend,
            sandbox_id=sandbox.sandbox_id,
            limits=self.limits.to_proto(),
            idle_seconds=time.monotonic() - self.used_at,
            busy=self.turn.locked(),
            python_version=str(sandbox.boot.get("python", "")),
        )


class Sessions:
    """The open sessions of all owners.

    Args:
        pool: Where their sandboxes come from.
        idle_seconds: How long an unused session is kept.
    """

    def __init__(self, pool: Pool, idle_seconds: float) -> None:
        self._pool = pool
        self._idle_seconds = idle_seconds
        self._open: dict[str, Session] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._epitaphs: dict[str, tuple[Owner, str]] = {}

    def __len__(self) -> int:
        return len(self._open)

    async def open(self, owner: Owner, session_id: str, limits: Limits) -> Session:
        """Open a session, or return it when it is open already.

        Raises:
            ForbiddenError: The id is another owner's.
        """
        session_id = session_id or secrets.token_hex(16)
        check_identifier(session_id, "session_id")
        # Two tries of one request must not lease twice.
        lock = self._opening.setdefault(session_id, asyncio.Lock())
        try:
            async with lock:
                if session_id in self._open:
                    return self.find(owner, session_id)
                lease = await self._pool.lease(owner, limits.sandbox)
                session = Session(session_id, owner, limits, lease)
                self._open[session_id] = session
                return session
        finally:
            self._opening.pop(session_id, None)

    def find(self, owner: Owner, session_id: str) -> Session:
        """The open session of an owner.

        Raises:
            ForbiddenError: It belongs to another owner; when only the context changed, says which keys.
            SessionLostError: It ended; says why.
            NotFoundError: There never was one, or it is long gone.
        """
        session = self._open.get(session_id)
        if session is None:
            whose, reason = self._epitaphs.get(session_id, (None, ""))
            if whose == owner:
                raise SessionLostError(f"session_id: the session is gone: {reason}; open a new one")
            raise NotFoundError("session_id: there is no such session; open one first")
        if session.owner != owner:
            if session.owner.identity == owner.identity:
                keys = ", ".join(session.owner.differs_in(owner))
                raise ForbiddenError(
                    f"context: {keys} changed within a session, and a sandbox serves one owner for life; "
                    "open a new session for the new context"
                )
            raise NotFoundError("session_id: there is no such session; open one first")
        if not session.lease.sandbox.link.alive:
            self.lose(session, "its sandbox ended")
            return self.find(owner, session_id)
        session.used_at = time.monotonic()
        return session

    def of(self, owner: Owner) -> list[Session]:
        """The open sessions of an owner."""
        return [session for session in self._open.values() if session.owner == owner]

    def lose(self, session: Session, reason: str) -> None:
        """A session whose interpreter is gone: its sandbox is emptied in the background."""
        if self._open.pop(session.session_id, None) is None:
            return
        self._epitaphs[session.session_id] = (session.owner, reason)
        while len(self._epitaphs) > MAX_EPITAPHS:
            del self._epitaphs[next(iter(self._epitaphs))]
        task = asyncio.ensure_future(self._pool.give_back(session.lease))
        # Held by the lease until it is done.
        task.add_done_callback(lambda _, lease=session.lease: None)  # type: ignore[misc]

    async def close(self, owner: Owner, session_id: str) -> bool:
        """Close a session: everything in it is killed and its files are gone when this returns."""
        try:
            session = self.find(owner, session_id)
        except (NotFoundError, SessionLostError):
            return False
        if self._open.pop(session_id, None) is None:
            return False
        await self._pool.give_back(session.lease)
        return True

    async def close_all(self) -> None:
        """Close every session, at the end of the executor."""
        sessions, self._open = list(self._open.values()), {}
        await asyncio.gather(*(session.lease.sandbox.kill() for session in sessions), return_exceptions=True)

    async def close_idle_forever(self) -> None:
        """Close sessions that nobody has used for long; runs until it is cancelled."""
        while True:
            await asyncio.sleep(min(30.0, self._idle_seconds / 4))
            now = time.monotonic()
            for session in list(self._open.values()):
                if not session.turn.locked() and now - session.used_at > self._idle_seconds:
                    with contextlib.suppress(Exception):
                        self.lose(session, f"it was idle for {self._idle_seconds:g} seconds")
