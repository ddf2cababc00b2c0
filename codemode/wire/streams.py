"""`Execute` streams kept open for the next execution: opening one costs three times a message on it."""

from __future__ import annotations

import asyncio
from typing import Any

# The executor waits longer, so that it is the client that ends a stream nobody needs.
IDLE_SECONDS = 30.0


class IdleStreams:
    """The open streams of one channel that no execution uses. All methods are called on the SDK's loop."""

    def __init__(self) -> None:
        # The last one that was used is the first to be used again, and the first one the first to be ended.
        self._calls: list[tuple[Any, asyncio.TimerHandle]] = []

    def take(self) -> Any | None:
        """A stream that is open as far as anybody knows, if there is one."""
        while self._calls:
            call, timer = self._calls.pop()
            timer.cancel()
            if not call.done():
                return call
        return None

    def keep(self, call: Any) -> None:
        """Keep a stream whose execution is finished."""
        timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end_oldest)
        self._calls.append((call, timer))

    def _end_oldest(self) -> None:
        call, _ = self._calls.pop(0)
        call.cancel()

    def close(self) -> None:
        """End all of them."""
        for call, timer in self._calls:
            timer.cancel()
            call.cancel()
        self._calls.clear()
