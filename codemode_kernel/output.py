"""Showing what happens in a sandbox as the notebook shows any cell's output, as it happens."""

from __future__ import annotations

import getpass
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from codemode.events import DisplayOutput, ExecutionEvent, Finished, OutputText
from codemode_kernel.untrusted import harmless

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from codemode.core.running import OnInput
    from codemode.rich_output import RichOutput

__all__ = ["CellOutput", "CellValue", "asks_person", "say", "told_if_slow"]

# A start that takes longer than this is worth a word to the person who waits.
SLOW_SECONDS = 3.0


class CellValue:
    """The value of a sandboxed cell's last expression, as it showed itself; what ``Out[n]`` holds."""

    def __init__(self, output: RichOutput) -> None:
        """Hold what the value showed of itself."""
        self._output = output

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        return self._output._repr_mimebundle_(include, exclude)

    def __repr__(self) -> str:
        """Return the text that the value had in the sandbox."""
        return str(self._output.data.get("text/plain", self._output))


class CellOutput:
    """Publishes the events of one execution; called with each.

    Args:
        shell: The notebook's shell.
        scope: Gives what the display ids of this session begin with here. Code in a sandbox can so
            update what it displayed itself, and nothing else of the notebook.
        trusted: Whether rich output is shown unchanged.
    """

    def __init__(self, shell: InteractiveShell, scope: Callable[[], str], trusted: bool) -> None:
        """Begin with nothing shown."""
        self._shell = shell
        # IPython annotates some of its methods only.
        self._publisher: Any = shell.display_pub
        self._scope = scope
        self._trusted = trusted
        self.left_out = False

    def __call__(self, event: ExecutionEvent) -> None:
        """Show one event."""
        if isinstance(event, OutputText):
            # Not flushed: ipykernel sends what was printed every 0.2 s, also while this thread waits.
            (sys.stderr if event.stream == "stderr" else sys.stdout).write(event.text)
        elif isinstance(event, DisplayOutput):
            self._display(event.output)
        elif isinstance(event, Finished):
            for notice in event.result.notices:
                say(notice.message)

    def _display(self, output: RichOutput) -> None:
        if output.kind == "clear_output":
            self._publisher.clear_output(wait=output.wait)
            return
        if not self._trusted:
            output, left_out = harmless(output)
            self.left_out = self.left_out or left_out
        if output.kind == "execute_result":
            # The display hook of the notebook numbers it, remembers it and sends it: Out[n] is as ever.
            self._shell.displayhook(CellValue(output))
            return
        self._publisher.publish(
            output.data,
            output.metadata,
            transient={name: f"{self._scope()}-{value}" for name, value in output.transient.items()},
            update=output.kind == "update_display_data",
        )


def asks_person(shell: InteractiveShell) -> OnInput | None:
    """What asks the person at the notebook for a line; None where nobody can be asked, as in papermill."""
    # ipykernel knows it of each request, and says it nowhere else.
    if not getattr(getattr(shell, "kernel", None), "_allow_stdin", True):
        return None
    return _ask


def _ask(prompt: str, password: bool) -> str:
    # Looked up now: ipykernel replaces both while a cell runs.
    return getpass.getpass(prompt) if password else input(prompt)


def say(message: str) -> None:
    """Tell the person something beside the cell's own output."""
    print(f"codemode: {message}", file=sys.stderr)  # noqa: T201


@contextmanager
def told_if_slow(message: str) -> Iterator[None]:
    """Tell the person what takes so long, if it does."""
    timer = threading.Timer(SLOW_SECONDS, say, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
