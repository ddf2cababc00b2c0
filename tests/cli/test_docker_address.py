"""Which engine is taken, and what is said when it cannot be."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import docker.errors
import pytest
from codemode_executor.backends.engine import engine_address
from codemode_executor.errors import BackendError

if TYPE_CHECKING:
    from tests.cli.conftest import RunCommand


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the files of the command `docker`, where no variable names an engine."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def use_context(home: Path, name: str, host: str) -> None:
    """Make a context the current one, with the files that `docker context create` and `use` write."""
    folder = home / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    folder.mkdir(parents=True)
    endpoint = {"Host": host, "SkipTLSVerify": False}
    meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
    (folder / "meta.json").write_text(json.dumps(meta))
    (home / "config.json").write_text(json.dumps({"currentContext": name}))


def test_the_usual_socket_is_the_default(home: Path) -> None:
    assert str(engine_address()["base_url"]).endswith(("/docker.sock", "docker_engine"))


def test_the_current_context_is_taken(home: Path) -> None:
    use_context(home, "desktop-linux", "unix:///home/somebody/.docker/run/docker.sock")
    assert engine_address()["base_url"] == "unix:///home/somebody/.docker/run/docker.sock"


def test_a_variable_goes_before_the_current_context(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_context(home, "two", "unix:///two.sock")
    use_context(home, "one", "unix:///one.sock")
    monkeypatch.setenv("DOCKER_CONTEXT", "two")
    assert engine_address()["base_url"] == "unix:///two.sock"
    monkeypatch.setenv("DOCKER_HOST", "unix:///three.sock")
    assert engine_address()["base_url"] == "unix:///three.sock"


def test_a_context_that_does_not_exist_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(BackendError, match="the Docker context 'gone' does not exist"):
        engine_address()


def test_a_context_that_is_no_json_is_told(home: Path) -> None:
    use_context(home, "broken", "unix:///one.sock")
    next(home.glob("contexts/meta/*/meta.json")).write_text("{")
    with pytest.raises(BackendError, match="cannot be read"):
        engine_address()


# --- errors, as the `docker` package really raises them -----------------------------------------


def serve_docker(run_command: RunCommand, host: str) -> str:
    """What `serve` says of an engine that it cannot have."""
    done = run_command(
        "codemode-executor", "serve", "--backend", "docker",
        DOCKER_HOST=host, CODEMODE_EXECUTOR_API_KEY="k" * 20,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_socket_that_does_not_exist(run_command: RunCommand) -> None:
    assert "there is no Docker Engine here" in serve_docker(run_command, "unix:///no/such/socket")


def test_a_socket_that_nobody_listens_on(run_command: RunCommand, tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert "does not answer; is it running?" in serve_docker(run_command, f"unix://{path}")


def test_an_address_that_refuses(run_command: RunCommand) -> None:
    assert "does not answer; is it running?" in serve_docker(run_command, "tcp://127.0.0.1:1")


def test_an_address_that_is_none(run_command: RunCommand) -> None:
    assert "the Docker Engine cannot be used: " in serve_docker(run_command, "gopher://x")


def test_a_socket_of_another_group(run_command: RunCommand) -> None:
    from codemode_executor.backends.docker import explain

    wrapped = docker.errors.DockerException("Error while fetching server API version")
    wrapped.__cause__ = ConnectionError("Connection aborted.", PermissionError(13, "Permission denied"))
    assert "group `docker`" in explain(wrapped, "")
