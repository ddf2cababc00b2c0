"""Every error this package raises, in one tree.

* CodemodeError
  x ExecutorClientError
    + ExecutorConnectionError (also ConnectionError)
    + ExecutorTimeoutError (also TimeoutError)
    + ExecutionFailedError
      - CodeTimeoutError (also ExecutorTimeoutError)
    + SessionLostError
    + LimitExceededError
    + AuthenticationError
    + OwnerChangedError
    + ProtocolError
  x ComponentError
    + ComponentNotFoundError (also KeyError)
      - ToolNotFoundError (also ToolError)
    + ComponentAlreadyExistsError (also ValueError)
    + InvalidComponentError (also ValueError)
  x ToolError
    + ToolNotFoundError (also ComponentNotFoundError)
    + ToolArgumentError (also ValueError)
    + ToolSchemaError (also ValueError)
    + ToolResultError (also ValueError)
  x ContextVariableError (also ValueError)
  x ConfigError
    + ConfigLoadError (also ValueError)
    + ConfigFileNotFoundError (also FileNotFoundError)

Every class takes its message first and its data as keywords that have
defaults. That is what lets an error be pickled and copied: Python rebuilds an
exception from ``args``, the message, and then restores the attributes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codemode.results import ExecutionResult

__all__ = [
    "AuthenticationError",
    "CodeTimeoutError",
    "CodemodeError",
    "ComponentAlreadyExistsError",
    "ComponentError",
    "ComponentNotFoundError",
    "ConfigError",
    "ConfigFileNotFoundError",
    "ConfigLoadError",
    "ContextVariableError",
    "ExecutionFailedError",
    "ExecutorClientError",
    "ExecutorConnectionError",
    "ExecutorTimeoutError",
    "InvalidComponentError",
    "LimitExceededError",
    "OwnerChangedError",
    "ProtocolError",
    "SessionLostError",
    "ToolArgumentError",
    "ToolError",
    "ToolNotFoundError",
    "ToolResultError",
    "ToolSchemaError",
]


class CodemodeError(Exception):
    """Base of every error of this package.

    Attributes:
        message: What happened, to what, and what to do next.
        correlation_id: Identifier of the request for people and logs; empty
            when no request was involved.
    """

    def __init__(self, message: str = "", *, correlation_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.correlation_id = correlation_id

    # Written out because KeyError and OSError, which some subclasses also
    # are, have their own idea of str(): KeyError shows the repr of its key.
    def __str__(self) -> str:
        """Return the message, followed by the correlation id unless it is already in there."""
        if not self.correlation_id or self.correlation_id in self.message:
            return self.message
        return f"{self.message} [correlation id: {self.correlation_id}]"


# --- executions -----------------------------------------------------------------


class ExecutorClientError(CodemodeError):
    """An execution, or another request to the executor, failed.

    Attributes:
        status: Name of the gRPC status the executor answered with, such as
            ``"UNAVAILABLE"``; empty when it was not the transport that failed.
    """

    def __init__(self, message: str = "", *, correlation_id: str = "", status: str = "") -> None:
        super().__init__(message, correlation_id=correlation_id)
        self.status = status


class ExecutorConnectionError(ExecutorClientError, ConnectionError):
    """The executor could not be reached, or went away.

    Attributes:
        outcome_unknown: True when the code may have run, wholly or in part,
            before the connection was lost; it has not been run again.
    """

    def __init__(
        self,
        message: str = "",
        *,
        correlation_id: str = "",
        status: str = "",
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message, correlation_id=correlation_id, status=status)
        self.outcome_unknown = outcome_unknown


class ExecutorTimeoutError(ExecutorClientError, TimeoutError):
    """The executor did not answer in time, or the code ran longer than it may."""


class ExecutionFailedError(ExecutorClientError):
    """The code ran and failed; the message is its error's type and message.

    A notebook shows the traceback of the sandbox instead of this process's.

    Attributes:
        result: The whole result, with the output the code gave before it
            failed; None when there is none.
    """

    def __init__(
        self,
        message: str = "",
        *,
        result: ExecutionResult | None = None,
        correlation_id: str = "",
        status: str = "",
    ) -> None:
        if result is not None and not correlation_id:
            correlation_id = result.correlation_id
        super().__init__(message, correlation_id=correlation_id, status=status)
        self.result = result

    def _render_traceback_(self) -> list[str]:
        """Return the lines that IPython prints for this error in place of a traceback."""
        details = self.result.error_details if self.result is not None else None
        return [str(self)] if details is None else details.shown_lines


class CodeTimeoutError(ExecutionFailedError, ExecutorTimeoutError):
    """The code was stopped because it ran longer than its time limit."""


class SessionLostError(ExecutorClientError):
    """A session and its variables are gone; open a new one and run its code again.

    Attributes:
        session_id: The session that was lost.
    """

    def __init__(
        self, message: str = "", *, session_id: str = "", correlation_id: str = "", status: str = ""
    ) -> None:
        super().__init__(message, correlation_id=correlation_id, status=status)
        self.session_id = session_id


class LimitExceededError(ExecutorClientError):
    """A request was refused because a part of it is beyond a limit, or is not valid.

    Attributes:
        limit: Name of the limit or of the field; empty when unknown.
    """

    def __init__(
        self, message: str = "", *, limit: str = "", correlation_id: str = "", status: str = ""
    ) -> None:
        super().__init__(message, correlation_id=correlation_id, status=status)
        self.limit = limit


class AuthenticationError(ExecutorClientError):
    """The executor does not accept the API key or the certificate."""


class OwnerChangedError(ExecutorClientError):
    """An isolation key, such as ``client_id``, changed within a session.

    A session belongs to one owner for life: open another one for the new owner.

    Attributes:
        keys: Names of the context variables that changed.
    """

    def __init__(
        self,
        message: str = "",
        *,
        keys: tuple[str, ...] = (),
        correlation_id: str = "",
        status: str = "",
    ) -> None:
        super().__init__(message, correlation_id=correlation_id, status=status)
        self.keys = keys


class ProtocolError(ExecutorClientError):
    """What the executor or a sandbox sent breaks the wire contract."""


# --- components -----------------------------------------------------------------


class ComponentError(CodemodeError):
    """Base of the errors of a ComponentRegistry.

    Attributes:
        kind: ``"tool"``, ``"agent"``, ``"team"`` or ``"flow"``.
        name: Name of the component.
    """

    def __init__(
        self, message: str = "", *, kind: str = "", name: str = "", correlation_id: str = ""
    ) -> None:
        super().__init__(message, correlation_id=correlation_id)
        self.kind = kind
        self.name = name


class ComponentNotFoundError(ComponentError, KeyError):
    """Nothing is registered under this name.

    Attributes:
        suggestions: Registered names that look like it, best first.
    """

    def __init__(
        self,
        message: str = "",
        *,
        kind: str = "",
        name: str = "",
        suggestions: tuple[str, ...] = (),
        correlation_id: str = "",
    ) -> None:
        super().__init__(message, kind=kind, name=name, correlation_id=correlation_id)
        self.suggestions = suggestions


class ComponentAlreadyExistsError(ComponentError, ValueError):
    """Something is already registered under this name and may not be replaced."""


class InvalidComponentError(ComponentError, ValueError):
    """A component, or the name for one, cannot be registered."""


# --- tools -----------------------------------------------------------------


class ToolError(CodemodeError):
    """Base of the errors about a tool, or its arguments or its result.

    Code in a sandbox learns the type and the message of such an error, so a
    message never holds more than that code may know.

    Attributes:
        tool: Name of the tool; empty when unknown.
    """

    def __init__(self, message: str = "", *, tool: str = "", correlation_id: str = "") -> None:
        super().__init__(message, correlation_id=correlation_id)
        self.tool = tool


class ToolNotFoundError(ToolError, ComponentNotFoundError):
    """No tool is registered under this name."""

    def __init__(
        self,
        message: str = "",
        *,
        name: str = "",
        suggestions: tuple[str, ...] = (),
        correlation_id: str = "",
        # Accepted so that a registry raises every kind of not-found error alike.
        kind: str = "tool",
    ) -> None:
        ComponentNotFoundError.__init__(
            self, message, kind=kind, name=name, suggestions=suggestions, correlation_id=correlation_id
        )
        self.tool = name


class ToolArgumentError(ToolError, ValueError):
    """A tool was called with arguments it does not take.

    Attributes:
        fields: Paths of the offending arguments, such as ``("location", "days.0")``.
        signature: Signature of the tool.
    """

    def __init__(
        self,
        message: str = "",
        *,
        tool: str = "",
        fields: tuple[str, ...] = (),
        signature: str = "",
        correlation_id: str = "",
    ) -> None:
        super().__init__(message, tool=tool, correlation_id=correlation_id)
        self.fields = fields
        self.signature = signature


class ToolSchemaError(ToolError, ValueError):
    """An object cannot be used as a tool, or its schema is not a usable JSON Schema."""


class ToolResultError(ToolError, ValueError):
    """What a tool returned cannot be sent to the code that called it.

    Attributes:
        path: Where in the result, such as ``"result['x'][3]"``.
        limit: Name of the limit it is beyond; empty when it is the type that cannot be sent.
    """

    def __init__(
        self,
        message: str = "",
        *,
        tool: str = "",
        path: str = "",
        limit: str = "",
        correlation_id: str = "",
    ) -> None:
        super().__init__(message, tool=tool, correlation_id=correlation_id)
        self.path = path
        self.limit = limit


# --- context and configuration -----------------------------------------------------------------


class ContextVariableError(CodemodeError, ValueError):
    """A variable of a RuntimeContext cannot be sent to the executor.

    Attributes:
        variable: Name of the variable.
    """

    def __init__(self, message: str = "", *, variable: str = "", correlation_id: str = "") -> None:
        super().__init__(message, correlation_id=correlation_id)
        self.variable = variable


class ConfigError(CodemodeError):
    """Base of the errors about configuration.

    Attributes:
        path: The configuration file; empty when it is not about a file.
    """

    def __init__(self, message: str = "", *, path: str = "", correlation_id: str = "") -> None:
        super().__init__(message, correlation_id=correlation_id)
        self.path = path


class ConfigLoadError(ConfigError, ValueError):
    """Configuration is malformed, incomplete, or has a value of the wrong type.

    Attributes:
        keys: Paths of the offending keys, such as ``("executor.timeout",)``, or
            names of the environment variables that are missing.
    """

    def __init__(
        self,
        message: str = "",
        *,
        path: str = "",
        keys: tuple[str, ...] = (),
        correlation_id: str = "",
    ) -> None:
        super().__init__(message, path=path, correlation_id=correlation_id)
        self.keys = keys


class ConfigFileNotFoundError(ConfigError, FileNotFoundError):
    """There is no configuration file at this path."""
