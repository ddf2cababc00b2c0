"""The quickstart does what it says, in every tool that runs notebooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "quickstart.ipynb"


def run(*command: str | Path, backend: str = "bubblewrap") -> subprocess.CompletedProcess[str]:
    """Run a Python module as a command."""
    return subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        env={**os.environ, "CODEMODE_BACKEND": backend, "PY_COLORS": "0"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def read(path: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def test_its_stored_outputs_come_out_again(sandbox_backend: str) -> None:
    # Without this project's settings: the warnings of nbval and its kernels are not for them to judge.
    done = run(
        *("pytest", "--nbval", "-p", "no:cacheprovider", "-c", os.devnull),
        *("--rootdir", QUICKSTART.parent, QUICKSTART),
        backend=sandbox_backend,
    )
    assert done.returncode == 0, done.stdout
    cells = [cell for cell in read(QUICKSTART).cells if cell.cell_type == "code"]
    assert f"{len(cells)} passed" in done.stdout


def test_a_papermill_parameter_becomes_the_context(tmp_path: Path) -> None:
    out = tmp_path / "out.ipynb"
    done = run("papermill", "--cwd", tmp_path, QUICKSTART, out, "-p", "client_id", "bakery")
    assert done.returncode == 0, done.stderr
    text = "".join(
        output.get("text", "") + str(output.get("data", {}).get("text/plain", ""))
        for cell in read(out).cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    assert "booked 592.00 for 2012" in text
    assert "('bakery', 2012, 592.0)" in text
    assert "client_id='bakery'" in text


def test_papermill_stops_at_a_cell_that_fails(tmp_path: Path) -> None:
    notebook = read(QUICKSTART)
    notebook.cells = [
        *notebook.cells[:2],
        nbformat.v4.new_code_cell("%%codemode\n1 / 0"),  # type: ignore[no-untyped-call]
        nbformat.v4.new_code_cell("open('ran.txt', 'w')"),  # type: ignore[no-untyped-call]
    ]
    source = tmp_path / "fails.ipynb"
    nbformat.write(notebook, source)  # type: ignore[no-untyped-call]
    done = run("papermill", "--cwd", tmp_path, source, tmp_path / "out.ipynb")
    assert done.returncode != 0
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert not (tmp_path / "ran.txt").exists()


def test_the_demo_prints_what_the_cells_show() -> None:
    done = run("codemode_kernel.demo", QUICKSTART)
    assert done.returncode == 0, done.stdout + done.stderr
    for line in ("booked 1850.00 for 2012", "  | %%codemode", "No such file", "timeout_seconds"):
        assert line in done.stdout
    assert " png]" in done.stdout
    assert "\x1b" not in done.stdout


def test_the_demo_stops_at_a_cell_that_fails(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        cells=[
            nbformat.v4.new_code_cell(source)  # type: ignore[no-untyped-call]
            for source in ("%load_ext codemode_kernel", "%%codemode\nprint('so far')\n1 / 0", "print('ran')")
        ]
    )
    path = tmp_path / "fails.ipynb"
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
    done = run("codemode_kernel.demo", path)
    assert done.returncode == 1
    assert "so far" in done.stdout and "ZeroDivisionError: division by zero" in done.stdout
    assert "\nran" not in done.stdout
    assert run("codemode_kernel.demo", tmp_path / "none.ipynb").returncode == 2


def test_it_holds_nothing_of_the_machine_it_was_written_on() -> None:
    text = QUICKSTART.read_text(encoding="utf-8")
    for trace in ("/tmp/", "site-packages", f"{Path.home()}/"):
        assert trace not in text
    notebook = read(QUICKSTART)
    assert notebook.metadata["kernelspec"]["name"] == "python3"
    assert all("execution" not in cell.metadata for cell in notebook.cells)
