"""A limit on how often something may happen."""

import time


class RateLimit:
    """A bucket that fills with `per_second` tokens a second and holds one second's worth.

    Whoever finds it empty may take from the future, up to one second ahead: a
    loop that calls a little too fast is slowed down instead of broken.
    """

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._tokens = float(per_second)
        self._at = time.monotonic()

    def delay(self) -> float | None:
        """Seconds to wait before the next one, usually 0; None when it must be refused."""
        now = time.monotonic()
        self._tokens = min(float(self._per_second), self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1 - self._per_second:
            return None
        self._tokens -= 1
        return max(0.0, -self._tokens / self._per_second) if self._per_second else None
