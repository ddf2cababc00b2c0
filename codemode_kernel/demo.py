"""``python -m codemode_kernel.demo NOTEBOOK`` runs a notebook without a browser and prints its results."""

from __future__ import annotations

import argparse
import base64
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

# What a terminal is sent besides text and colours could move its cursor, or name its window.
_CONTROL = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CELL_SECONDS = 600


def main(arguments: list[str] | None = None) -> int:
    """Run a notebook; returns 1 when a cell fails that should not."""
    parser = argparse.ArgumentParser(prog="python -m codemode_kernel.demo", description=__doc__)
    parser.add_argument("notebook", type=Path)
    path: Path = parser.parse_args(arguments).notebook
    if not path.is_file():
        parser.error(f"there is no notebook {path}")
    # The kernel of this very environment, where the user has registered one of the same name too.
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_SECONDS,
        resources={"metadata": {"path": str(path.resolve().parent)}},
        extra_arguments=["--log-level=ERROR"],
    )
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            _print(_source(cell))
            if cell.cell_type != "code":
                continue
            failure: CellExecutionError | None = None
            try:
                client.execute_cell(cell, index)
            except CellExecutionError as error:
                failure = error
            for text in _shown(cell):
                _print(text)
            if failure is not None:
                sys.stdout.flush()
                print(f"\nThe cell above failed: {failure.ename}. Stopped.", file=sys.stderr)  # noqa: T201
                return 1
    return 0


def _source(cell: NotebookNode) -> str:
    if cell.cell_type != "code":
        return f"\n{cell.source}"
    return "\n" + "\n".join(f"  | {line}".rstrip() for line in cell.source.splitlines())


def _shown(cell: NotebookNode) -> Iterator[str]:
    """What each output of a cell looks like as text."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        elif output.output_type == "error":
            yield "\n".join(output.traceback)
        else:
            image = output.data.get("image/png")
            yield _figure(image) if image else output.data.get("text/plain", f"[{', '.join(output.data)}]")


def _figure(image: str) -> str:
    # A PNG begins with 16 bytes that are always the same, then its width and height.
    try:
        width, height = struct.unpack(">II", base64.b64decode(image[:32])[16:24])
    except (ValueError, struct.error):
        return "[figure png]"
    return f"[figure {width}x{height} png]"


def _print(text: str) -> None:
    text = _CONTROL.sub("", text.rstrip())
    print(text if sys.stdout.isatty() else _COLOUR.sub("", text), flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
