"""What the standard library does in every fork, put off to the forks for which it is meant.

Modules with locks and threads mend them in a fork, because another thread may
have held them. The supervisor has one thread and holds nothing when it forks,
so there is nothing to mend; the work would only make each fork, and the
supervisor after it, copy some forty pages more. An interpreter whose code may
fork has the hooks again, as ever.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_put_off: list[dict[str, Callable[[], Any]]] = []


@contextmanager
def put_off() -> Iterator[None]:
    """Keep the hooks that are registered while modules are imported that need no mending here."""
    register = os.register_at_fork
    os.register_at_fork = lambda **hooks: _put_off.append(hooks)
    try:
        yield
    finally:
        os.register_at_fork = register


def restore() -> None:
    """In an interpreter, before it runs any code: its own forks have the hooks, and its chance is its own."""
    for hooks in _put_off:
        os.register_at_fork(**hooks)
    _put_off.clear()
    import random

    random.seed()
