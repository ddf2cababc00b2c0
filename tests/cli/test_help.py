"""Both commands explain themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from codemode_executor.config import ExecutorConfig

if TYPE_CHECKING:
    from tests.cli.conftest import RunCommand

TOPICS = [
    ("codemode", "", ["run", "doctor", "--version"]),
    ("codemode", "run", ["FILE", "--timeout", "--backend", "--context", "--json", "exit code"]),
    ("codemode", "doctor", ["--json", "exit code"]),
    ("codemode-executor", "", ["serve", "image", "doctor", "--version"]),
    ("codemode-executor", "image", ["build"]),
    ("codemode-executor", "image build", ["--requirements", "--base-image", "python:3.12-slim"]),
    ("codemode-executor", "doctor", ["--json", "exit code"]),
]


@pytest.mark.parametrize(("command", "topic", "words"), TOPICS)
def test_help_names_everything(run_command: RunCommand, command: str, topic: str, words: list[str]) -> None:
    done = run_command(command, *topic.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert [word for word in words if word not in done.stdout] == []


def test_every_setting_is_an_option_with_its_own_words(run_command: RunCommand) -> None:
    said = " ".join(run_command("codemode-executor", "serve", "--help").stdout.split())
    for name, field in ExecutorConfig.model_fields.items():
        assert f"--{name.replace('_', '-')} " in said
        # The help breaks words at hyphens.
        assert field.description
        assert field.description.replace("- ", "-") in said.replace("- ", "-"), name
    assert "--parent-fd" not in said


def test_defaults_are_shown(run_command: RunCommand) -> None:
    said = " ".join(run_command("codemode-executor", "serve", "--help").stdout.split())
    assert "[default: 127.0.0.1:8001]" in said
    assert "[default: client_id,tenant_id,user_id,session_id]" in said
    assert "[default: 536870912]" in said


@pytest.mark.parametrize("command", ["codemode", "codemode-executor"])
def test_the_version_is_that_of_the_distribution(run_command: RunCommand, command: str) -> None:
    from importlib.metadata import version

    assert version("codemode-kernel") in run_command(command, "--version").stdout


@pytest.mark.parametrize(
    ("command", "typed", "meant"),
    [
        ("codemode", "runn x.py", "'run'"),
        ("codemode", "run --timeot 3 x.py", "'--timeout'"),
        ("codemode-executor", "serv", "'serve'"),
        ("codemode-executor", "serve --max-sandboxs 3", "'--max-sandboxes'"),
    ],
)
def test_a_typing_error_gets_a_suggestion(
    run_command: RunCommand, command: str, typed: str, meant: str
) -> None:
    done = run_command(command, *typed.split())
    assert done.returncode == 2
    assert "Did you mean" in done.stderr
    assert meant in done.stderr
