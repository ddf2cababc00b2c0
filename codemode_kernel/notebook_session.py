"""The one session of a notebook: made at the first cell, replaced when it is lost, gone with the kernel."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codemode.core.context import RuntimeContext, use_context
from codemode.errors import CodemodeError, ExecutorConnectionError, OwnerChangedError, SessionLostError
from codemode.events import Finished
from codemode_kernel.interrupts import uninterrupted
from codemode_kernel.output import told_if_slow

if TYPE_CHECKING:
    from codemode_proto.v1 import executor_pb2 as pb

    from codemode import Codemode, ExecutionResult, Session
    from codemode.core.running import OnInput
    from codemode.events import ExecutionEvent

__all__ = ["NotebookSession"]


class NotebookSession:
    """Holds the connection, the session and the context of a notebook.

    Args:
        connect: Makes the connection, when it is first needed and after it was closed.
    """

    def __init__(self, connect: Callable[[], Codemode]) -> None:
        """Start with nothing connected and an empty context."""
        self._connect = connect
        self._codemode: Codemode | None = None
        self._session: Session | None = None
        self._isolation_keys: tuple[str, ...] = ()
        self._process = os.getpid()
        self.context = RuntimeContext()

    # --- what it stands on ------------------------------------------------------------------------

    @property
    def codemode(self) -> Codemode:
        """The connection, made now if there was none."""
        if self._executor_died():
            self.close()
        if self._codemode is None:
            self._codemode = self._connect()
            atexit.register(self.close)
        return self._codemode

    @property
    def session_id(self) -> str:
        """Identity of the open session; empty without one."""
        return self._session.session_id if self._session is not None else ""

    def describe(self) -> pb.ReadyResponse:
        """What the executor says of itself."""
        import grpc

        from codemode.wire.checks import describe
        from codemode.wire.failures import error_for
        from codemode.wire.loop import run

        client = self.codemode.executor_client
        try:
            return run(describe(client._connection))
        except grpc.aio.AioRpcError as error:
            raise error_for(error, client.executor_url) from None

    def sandbox(self) -> pb.Session | None:
        """What the executor says of the open session; None when there is none, or not any more."""
        from codemode.core.executor_client import context_to_proto
        from codemode.wire.loop import run
        from codemode.wire.requests import list_sessions

        if self._session is None:
            return None
        connection = self.codemode.executor_client._connection
        sessions = run(list_sessions(connection, context_to_proto(self._session.context)))
        return next((item for item in sessions if item.session_id == self.session_id), None)

    def open(self) -> Session:
        """The open session, opened now under the notebook's context if there was none."""
        codemode = self.codemode
        if self._session is None:
            self._isolation_keys = tuple(self.describe().isolation_keys)
            with use_context(self.context):
                session = codemode.session()
            with told_if_slow("opening the session takes a while"):
                self._session = session.open()
        return self._session

    # --- context ----------------------------------------------------------------------------------

    def set_context(self, variables: Mapping[str, Any]) -> None:
        """Set variables besides those that are set; None takes one away.

        Raises:
            OwnerChangedError: It would change whom the open session belongs to.
            ContextVariableError: JSON cannot carry a value.
        """
        context = self.context_with(variables)
        self._check_owner(context)
        self.context = context

    def context_with(self, variables: Mapping[str, Any]) -> RuntimeContext:
        """The notebook's context with these variables besides, or in place of, its own."""
        return RuntimeContext.from_parameters({**self.context.variables, **variables})

    def _check_owner(self, context: RuntimeContext) -> None:
        """Say it before the executor does, who cannot know what there is to do in a notebook."""
        if self._session is None or self._session.context is None:
            return
        of_session = self._session.context
        changed = tuple(key for key in self._isolation_keys if context.get(key) != of_session.get(key))
        if changed:
            changes = " and ".join(
                f"{key} from {_shown(of_session.get(key))} to {_shown(context.get(key))}" for key in changed
            )
            raise OwnerChangedError(
                f"this would change {changes}, but the session was opened for the former, and its sandbox "
                "serves one owner for life. `%codemode reset` ends the session and its variables; then set "
                "the context again. Or run a single cell apart from the session with `%%codemode --fresh`.",
                keys=changed,
            )

    # --- work -------------------------------------------------------------------------------------

    def run(
        self,
        code: str,
        *,
        fresh: bool = False,
        context: RuntimeContext,
        tools: list[str] | None,
        timeout: float | None,
        on_event: Callable[[ExecutionEvent], None],
        on_input: OnInput | None,
    ) -> ExecutionResult:
        """Run a cell and return its outcome; a cell that fails does not raise.

        Args:
            code: The cell.
            fresh: Run it in an interpreter of its own instead of in the session.
            context: What it runs under.
            tools: Tools it may call; None for all.
            timeout: Seconds it may run; None for the configuration's.
            on_event: Called with every event as it happens.
            on_input: Asks a person.

        Raises:
            OwnerChangedError: The context is another owner's than the session's.
            SessionLostError: The session is gone; the next cell opens a new one.
            KeyboardInterrupt: The code did not answer an interrupt.
        """
        session_id = ""
        if not fresh:
            if self._session is not None and self._executor_died():
                raise self._lost("the local executor ended")
            session_id = self.open().session_id
            self._check_owner(context)
        codemode = self.codemode
        running = codemode.executor_client.begin(
            code,
            tools,
            {},
            codemode.client_config.execution_timeout if timeout is None else timeout,
            context,
            session_id=session_id,
            on_input=on_input,
        )
        ended: list[ExecutionResult] = []

        def follow(event: ExecutionEvent) -> None:
            if isinstance(event, Finished):
                ended.append(event.result)
            on_event(event)

        try:
            result = running.result(uninterrupted(follow, running.interrupt))
        except KeyboardInterrupt:
            # Code that was interrupted ends in its own way, even well: it says so itself.
            if not ended:
                raise
            result = ended[0]
        except (SessionLostError, ExecutorConnectionError) as error:
            if session_id and (isinstance(error, SessionLostError) or self._executor_died()):
                raise self._lost(error.message) from None
            raise
        if result.session_state == "lost":
            self._session = None
        return result

    def _executor_died(self) -> bool:
        local = self._codemode.local_executor if self._codemode is not None else None
        return local is not None and not local.is_running

    def _lost(self, reason: str) -> SessionLostError:
        session_id, self._session = self.session_id, None
        return SessionLostError(
            f"{reason}. The session's variables and files are gone; the next cell starts a new session.",
            session_id=session_id,
        )

    def put_file(self, source: str | Path, target: str | None) -> str:
        """Bring a file into the session's working directory; returns its path there."""
        return self.open().put_file(source, target)

    # --- the end ----------------------------------------------------------------------------------

    def reset(self) -> bool:
        """End the session; the next cell opens a new one. Returns whether there was one."""
        session, self._session = self._session, None
        if session is None:
            return False
        with suppress(SessionLostError, ExecutorConnectionError):
            session.close()
        return True

    def close(self) -> None:
        """End the session and the connection, with the executor if this notebook started it."""
        if os.getpid() != self._process:
            # A fork of the kernel must not end what the kernel goes on using.
            return
        atexit.unregister(self.close)
        codemode, self._codemode = self._codemode, None
        if codemode is None:
            return
        with suppress(CodemodeError):
            # An executor of our own takes its sandboxes with it, faster.
            if codemode.local_executor is None:
                self.reset()
        self._session = None
        codemode.close()


def _shown(value: Any) -> str:
    return "unset" if value is None else repr(value)
