"""Errors a person can act on, without the frames of the machinery that raised them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from codemode.errors import CodemodeError

__all__ = ["short_errors"]


@contextmanager
def short_errors() -> Iterator[None]:
    """Within it, an error of Codemode's own, or an interrupt, is shown by a notebook in one line.

    The error itself is raised as it is: Run All, nbclient, nbval and papermill
    stop at it, and code can catch it. A failure of sandboxed code keeps the
    sandbox's traceback, and an error that is not Codemode's its own.
    """
    try:
        yield
    except (CodemodeError, KeyboardInterrupt) as error:
        if not hasattr(error, "_render_traceback_"):
            shorten(error, [f"{type(error).__name__}: {error}".removesuffix(": ")])
        raise


def shorten(error: BaseException, lines: list[str]) -> None:
    """Have IPython show these lines in place of the error's traceback."""
    # The hook that IPython looks for; on the instance, because the class is the SDK's or Python's.
    error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
