"""An interrupt that arrives while output is being shown."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType

from codemode.events import ExecutionEvent

__all__ = ["uninterrupted"]


def uninterrupted(
    show: Callable[[ExecutionEvent], None], interrupt: Callable[[], None]
) -> Callable[[ExecutionEvent], None]:
    """Show events whole, and pass an interrupt that comes meanwhile on to the code.

    SIGINT would otherwise raise inside of ipykernel's own sending, at any of its
    lines: the message is torn, and the error that surfaces is about sockets. A second
    one raises all the same: the code does not listen.

    Args:
        show: Shows one event.
        interrupt: Interrupts the code.
    """
    # Python gives signals to the main thread only; cells of a subshell run on another.
    if threading.current_thread() is not threading.main_thread():
        return show
    interrupts = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        interrupts += 1

    def show_whole(event: ExecutionEvent) -> None:
        before = interrupts
        usual = signal.signal(signal.SIGINT, note)
        try:
            show(event)
        finally:
            signal.signal(signal.SIGINT, usual)
        if interrupts > 1:
            raise KeyboardInterrupt
        if interrupts > before:
            interrupt()

    return show_whole
