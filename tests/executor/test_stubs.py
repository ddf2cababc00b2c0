"""The generated stubs are those of the contract beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "proto"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    kinds = ("python", "grpc_python", "mypy", "mypy_grpc")
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-Iproto",
        *(f"--{kind}_out={out}" for kind in kinds),
    ]
    sources = sorted(str(path.relative_to(FOLDER.parent)) for path in FOLDER.rglob("*.proto"))
    # protoc looks for its plugins there.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run(
        [*command, *sources],
        cwd=FOLDER.parent,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_the_stubs_are_fresh(generated: Path) -> None:
    made = {path.relative_to(generated): path.read_bytes() for path in generated.rglob("*_pb2*")}
    committed = {
        path.relative_to(FOLDER): path.read_bytes()
        for path in FOLDER.rglob("*_pb2*.py*")
        if "__pycache__" not in path.parts
    }
    assert set(made) == set(committed)
    stale = sorted(str(path) for path in made if made[path] != committed[path])
    assert not stale, f"run `make proto`: {', '.join(stale)}"


def test_every_kind_of_stub_is_there(generated: Path) -> None:
    names = {path.name for path in generated.rglob("*_pb2*")}
    assert names == {"executor_pb2.py", "executor_pb2.pyi", "executor_pb2_grpc.py", "executor_pb2_grpc.pyi"}
