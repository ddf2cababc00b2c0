"""`codemode-executor serve`: what it refuses, and how it begins and ends."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import RunCommand, Serve

KEY = "a-key-of-the-tests-0123456789"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--listen 0.0.0.0:8001", "not a loopback address"),
        ("--listen [::]:8001", "not a loopback address"),
        ("--listen 127.example.org:8001", "not a loopback address"),
        ("--listen nonsense", "--listen: 'nonsense' is neither HOST:PORT nor unix:"),
        ("--listen 127.0.0.1:99999", "--listen: '127.0.0.1:99999'"),
        ("--warm -3", "--warm: "),
        ("--warm many", "'--warm'"),
        ("--backend podman", "'--backend'"),
        ("--timeout-seconds 9999", "--timeout-seconds: 9,999.0 is above max_timeout_seconds, 3,600.0"),
        ("--memory-bytes 1024", "--memory-bytes: 1,024 is below the least that works"),
        ("--timeout-seconds nan", "--timeout-seconds: nan is below"),
        ("--tls-key /no/such/file", "'--tls-key'"),
        ("--api-keys-file /no/such/file", "'--api-keys-file'"),
        ("--log-level loud", "'--log-level'"),
        ("--metrics nonsense", "--metrics: 'nonsense' is not HOST:PORT"),
    ],
)
def test_a_wrong_option_is_refused_by_name(run_command: RunCommand, arguments: str, words: str) -> None:
    done = run_command("codemode-executor", "serve", *arguments.split(), CODEMODE_EXECUTOR_API_KEY=KEY)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_wrong_variable_is_named(run_command: RunCommand) -> None:
    done = run_command("codemode-executor", "serve", CODEMODE_EXECUTOR_WARM="-1")
    assert done.returncode == 2
    assert "--warm (from CODEMODE_EXECUTOR_WARM): " in done.stderr


def test_every_problem_is_told_at_once(run_command: RunCommand) -> None:
    done = run_command("codemode-executor", "serve", "--warm", "-1", "--max-queue", "-1")
    assert "--warm: " in done.stderr
    assert "--max-queue: " in done.stderr


def test_without_a_key_it_says_how_to_give_one(run_command: RunCommand) -> None:
    done = run_command("codemode-executor", "serve")
    assert done.returncode == 2
    assert "CODEMODE_EXECUTOR_API_KEY" in done.stderr


def test_a_list_of_keys_with_a_mistake_is_refused_without_showing_a_key(
    run_command: RunCommand, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice: {KEY}\nbob short-secret\n")
    done = run_command("codemode-executor", "serve", "--api-keys-file", str(keys))
    assert done.returncode == 2
    assert "line 2" in done.stderr
    assert KEY not in done.stderr
    assert "short-secret" not in done.stderr


def test_lists_are_separated_by_commas(serve: Serve) -> None:
    executor = serve("--preload", "csv, wave", "--isolation-keys", "team")
    with executor.connect() as codemode:
        assert codemode.execute("import sys; result = 'wave' in sys.modules") == "True"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_though_its_parent_lives(serve: Serve, number: signal.Signals) -> None:
    executor = serve()
    executor.process.send_signal(number)
    assert executor.process.wait(timeout=10) == 0


def test_it_stops_when_its_parent_ends(serve: Serve) -> None:
    executor = serve()
    executor.close()
    assert executor.process.returncode == 0


def test_metrics_without_the_package_name_what_to_install(serve: Serve) -> None:
    import subprocess

    program = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from codemode_executor.cli import main; main(prog_name='codemode-executor')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", "--metrics", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        env={"CODEMODE_EXECUTOR_API_KEY": KEY},
        check=False,
    )
    assert done.returncode == 2
    assert "pip install 'codemode-kernel[metrics]'" in done.stderr
