"""A cell shows, raises and returns the same on the short way and on IPython's."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from codemode_sandbox import quick_cell

if TYPE_CHECKING:
    from tests.executor.conftest import Outcome, Runner

# Cells for the short way.
PLAIN = {
    "a value": "1 + 1",
    "a variable": "result = 'mine'\n7",
    "statements and a value": "x = 2\nfor i in range(3):\n    x += i\nx",
    "no value": "x = 1",
    "none": "None",
    "only a comment": "# nothing",
    "a docstring": "'''words'''\n__doc__",
    "output by turns": "import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c')\n'd'",
    "a rich value": "class R:\n  def _repr_html_(self): return '<b>'\n  def __repr__(self): return 'r'\nR()",
    "a value that cannot be shown": "type('Bad', (), {'__repr__': lambda self: 1 / 0})()",
    "a text that cannot be": "result = type('Bad', (), {'__str__': lambda self: 1 / 0})()",
    "display": "from IPython.display import HTML\ndisplay(HTML('<i>1</i>'))\nclear_output = 2",
    "an error": "def f():\n    return 1 / 0\n\nf()",
    "an error in the expression": "x = {}\nx['missing']",
    "an error with notes": "e = ValueError('v')\ne.add_note('note')\nraise e",
    "a chained error": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e",
    "a group of errors": "raise ExceptionGroup('several', [ValueError(1), KeyError(2)])",
    "an error of its own text": "class E(Exception):\n    def __str__(self): return 'own'\nraise E",
    "a syntax error at run time": "compile('1 +', 'other', 'exec')",
    "an end": "raise SystemExit(3)",
    "an interrupt": "raise KeyboardInterrupt",
    "a missing module": "import no_such_module_at_all",
    "a missing file": "open('missing.csv')",
    "source of a function": "import inspect\ndef f():\n    return 1  # one\ninspect.getsource(f)",
    "the module it runs in": "import sys\nx = 5\n(__name__, sys.modules['__main__'].x)",
    "pickles of its own": "import pickle\nclass C: pass\ntype(pickle.loads(pickle.dumps(C()))).__name__",
    "warnings": "import warnings\nwarnings.warn('careful')",
    "a figure": "import matplotlib.pyplot as plt\nplt.plot([1])\nNone",
    "sys.displayhook": "import sys\nsys.displayhook(5)",
    "deep recursion": "def f(n): return f(n + 1)\nf(0)",
    "no earlier value": "_",
    "a walrus": "(y := 3)",
    "asyncio.run": "import asyncio\nasyncio.run(asyncio.sleep(0, 'slept'))",
    "many lines": "\n".join(f"x{i} = {i}" for i in range(300)) + "\nx299",
    "windows lines": "x = 1\r\nx + 1",
    "unicode": "grüße = 'ß'\ngrüße",
}
# Cells that must go IPython's way.
OTHER = {
    "a magic": "%precision 2\n1/3",
    "the shell": "!echo hello",
    "help": "print?",
    "a hidden value": "1 + 1;",
    "top-level await": "import asyncio\nawait asyncio.sleep(0, 'slept')",
    "a task": "import asyncio\nt = asyncio.create_task(asyncio.sleep(0))\ntype(t).__name__",
    "history": "In[-1]",
    "the shell object": "type(get_ipython()).__name__",
    "a mistake": "def f(:",
    "a mistake in a string": "x = 'abc",
    "a return": "return 1",
    "an indented cell": "    x = 1\n    x + 1",
    "a future": "from __future__ import annotations\n1",
    "a null": "x = '\0'",
    "nothing": " \n ",
}


def said(outcome: Outcome) -> list[tuple[int, str, bytes]]:
    """What a caller sees of an outcome, without addresses in memory and the name of the cell's file."""
    return [
        (message.kind, _stable(json.dumps(message.head)), _stable(message.body.decode()).encode())
        for message in outcome.messages
    ]


def _stable(text: str) -> str:
    # On IPython's way the name holds a digest, and there are more frames above the cell.
    text = re.sub(r"\(\d+ times\)", "(often)", re.sub(r"<ipython-input-1[-0-9a-f]*>", "<cell>", text))
    return re.sub(r"0x[0-9a-f]+", "0x", text)


@pytest.mark.parametrize("code", [*PLAIN.values(), *OTHER.values()], ids=[*PLAIN, *OTHER])
def test_both_ways_end_alike(runner: Runner, code: str) -> None:
    long = said(runner.run(code, alone=False))
    assert runner.reset()
    assert said(runner.run(code, alone=True)) == long


class Nothing:
    """A shell that must not be touched."""


@pytest.mark.parametrize("code", OTHER.values(), ids=OTHER)
def test_what_needs_ipython_is_left_to_it(code: str) -> None:
    shell: Any = Nothing()
    shell.execution_count = 1
    assert quick_cell.run(shell, code) is None


@pytest.mark.parametrize("code", PLAIN.values(), ids=PLAIN)
def test_plain_cells_take_the_short_way(code: str) -> None:
    shell: Any = Nothing()
    shell.execution_count = 1
    # It gets as far as the first thing that it needs of the shell.
    with pytest.raises(AttributeError, match="compile"):
        quick_cell.run(shell, code)
