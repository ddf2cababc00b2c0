"""When to try again, and how long to wait before."""

from __future__ import annotations

import random
from dataclasses import dataclass

import grpc

from codemode.wire.failures import RETRYABLE, is_too_large, retry_after_seconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits that double: 100 ms, 200 ms, 400 ms and so on.

    Attributes:
        max_attempts: Tries in all, the first included; 1 for no retry.
        base_ms: The first wait.
        max_ms: The longest wait.
        codes: gRPC statuses after which a try makes sense.
        jitter: Take a random part, at least half, of each wait, so that clients do not come back all at once.
    """

    max_attempts: int = 3
    base_ms: int = 100
    max_ms: int = 5000
    codes: tuple[grpc.StatusCode, ...] = RETRYABLE
    jitter: bool = False

    def wait_after(self, error: grpc.aio.AioRpcError, tries: int) -> float | None:
        """Seconds to wait after the `tries`-th try failed; None when it must not be tried again."""
        if tries >= self.max_attempts or error.code() not in self.codes or is_too_large(error):
            return None
        asked = retry_after_seconds(error)
        wait: float = min(self.base_ms * 2 ** (tries - 1), self.max_ms) / 1000
        if self.jitter:
            wait *= random.uniform(0.5, 1.0)  # noqa: S311 - not for secrecy
        return wait if asked is None else max(wait, asked)
