"""What the packages import, which is what makes them fit where they run."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

# traitlets and what makes tracebacks come with IPython.
IN_A_SANDBOX = sys.stdlib_module_names | {"IPython", "traitlets", "codemode_sandbox"}


def imported_by(folder: Path) -> set[str]:
    """The packages that the modules in a folder import, at whatever place in them."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
    return found


def test_a_sandbox_imports_the_standard_library_and_ipython_alone(repository: Path) -> None:
    assert imported_by(repository / "executor" / "codemode_sandbox") <= IN_A_SANDBOX


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("codemode", {"codemode_kernel", "codemode_executor", "codemode_sandbox"}),
        ("executor/codemode_executor", {"codemode_kernel", "codemode"}),
        ("proto/codemode_proto", {"codemode_kernel", "codemode", "codemode_executor", "codemode_sandbox"}),
    ],
)
def test_imports_point_one_way(repository: Path, package: str, never: set[str]) -> None:
    assert not imported_by(repository / package) & never
