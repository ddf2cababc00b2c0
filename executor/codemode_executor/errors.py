"""What the service refuses, with the gRPC status that says so."""

import grpc


class ServiceError(Exception):
    """A request that cannot be served.

    Attributes:
        code: The gRPC status code.
        retry_after_ms: How long the caller should wait before it tries again, if that may help.
    """

    code = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class InvalidRequestError(ServiceError):
    """A field of the request is wrong; the message names it."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class UnauthenticatedError(ServiceError):
    """No API key, or a wrong one."""

    code = grpc.StatusCode.UNAUTHENTICATED


class ForbiddenError(ServiceError):
    """The caller is known, but this is not theirs."""

    code = grpc.StatusCode.PERMISSION_DENIED


class NotFoundError(ServiceError):
    """There is no such session, file or execution."""

    code = grpc.StatusCode.NOT_FOUND


class SessionLostError(ServiceError):
    """The session ended; the message says why."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class ConflictError(ServiceError):
    """The same identity with another content, or a session that is busy."""

    code = grpc.StatusCode.ALREADY_EXISTS


class OutcomeForgottenError(ServiceError):
    """The execution ended, but how is not known any more."""

    code = grpc.StatusCode.DATA_LOSS


class OverloadedError(ServiceError):
    """No room now."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class BackendError(ServiceError):
    """A sandbox could not be started; the message says what to do."""

    code = grpc.StatusCode.UNAVAILABLE


class SandboxDiedError(ServiceError):
    """A sandbox ended while it was needed."""

    code = grpc.StatusCode.ABORTED
