"""`codemode run`: a file in a sandbox, with the manners of a command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import RunCommand, Serving

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(run_command: RunCommand, serving: Serving) -> Run:
    """`codemode run` of code on standard input, on an executor that is configured."""

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(
            "codemode", "run", "-", *arguments, given=code,
            CODEMODE_EXECUTOR_URL=serving.url, CODEMODE_EXECUTOR_API_KEY=serving.key,
        )  # fmt: skip

    return run


def test_output_goes_where_the_code_sends_it(run: Run) -> None:
    done = run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n[1, 2]")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n[1, 2]\n", "err\n", 0)


def test_the_context_is_given_by_options(run: Run) -> None:
    done = run("print(context['client_id'], context['note'])", "-c", "client_id=acme", "-c", "note=a=b")
    assert done.stdout == "acme a=b\n"


def test_code_that_fails_shows_its_own_traceback(run: Run) -> None:
    done = run("def half(x):\n    return x / 0\n\nhalf(1)\n")
    assert done.returncode == 1
    assert "----> 2     return x / 0" in done.stderr
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    # No colours where there is no terminal, and none of the runner's own frames.
    assert "\x1b" not in done.stderr
    assert "codemode_sandbox" not in done.stderr


def test_code_that_runs_too_long_ends_like_under_timeout(run: Run) -> None:
    done = run("print('begun', flush=True)\nwhile True: pass", "--timeout", "0.3")
    assert done.returncode == 124
    assert done.stdout == "begun\n"
    assert "TimeoutError: the code ran longer than timeout_seconds=0.3" in done.stderr


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [("", 0, ""), ("0", 0, ""), ("3", 3, ""), ("'no input'", 1, "no input\n")],
)
def test_sys_exit_gives_the_exit_code(run: Run, ending: str, code: int, said: str) -> None:
    done = run(f"import sys, warnings; warnings.simplefilter('ignore'); sys.exit({ending})")
    assert (done.returncode, done.stderr) == (code, said)


def test_an_interpreter_that_dies_is_a_failure(run: Run) -> None:
    done = run("import os; os._exit(0)")
    assert done.returncode == 1
    assert "SandboxDiedError" in done.stderr


def test_json_has_the_whole_result_and_nothing_beside_it(run: Run) -> None:
    done = run("print('out'); result = {'a': 1}", "--json")
    result = json.loads(done.stdout)
    assert (result["success"], result["value"], result["stdout"]) == (True, {"a": 1}, "out\n")
    assert result["limits"]["memory_bytes"] == 512 << 20
    failed = run("1 / 0", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["error_details"]["type"] == "ZeroDivisionError"
    assert failed.stderr == ""


def test_a_file_may_ask_for_input(run_command: RunCommand, serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "ask.py"
    file.write_bytes(b"\xef\xbb\xbfname = input('who? ')\nprint('hello', name)")
    done = run_command(
        "codemode", "run", str(file), given="Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}\n",
        CODEMODE_EXECUTOR_URL=serving.url, CODEMODE_EXECUTOR_API_KEY=serving.key,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("hello Zo\N{LATIN SMALL LETTER E WITH DIAERESIS}\n", "who? ")


def test_an_interrupt_stops_the_code(serving: Serving, tmp_path: Path) -> None:
    file = tmp_path / "long.py"
    file.write_text("print('begun', flush=True)\nimport time\ntime.sleep(60)")
    with subprocess.Popen(
        [sys.executable, "-m", "codemode.cli", "run", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"CODEMODE_EXECUTOR_URL": serving.url, "CODEMODE_EXECUTOR_API_KEY": serving.key},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 130


def test_without_a_configured_executor_it_starts_one(run_command: RunCommand) -> None:
    done = run_command("codemode", "run", "-", "--json", "--backend", "bubblewrap", given="result = 6 * 7")
    result = json.loads(done.stdout)
    assert (result["result"], result["backend"]) == ("42", "bubblewrap")


def test_an_executor_that_is_not_there_is_named(run_command: RunCommand) -> None:
    done = run_command(
        "codemode", "run", "-", given="1",
        CODEMODE_EXECUTOR_URL="unix:/no/such/socket", CODEMODE_EXECUTOR_API_KEY="k" * 20,
    )  # fmt: skip
    assert done.returncode == 125
    assert "unix:/no/such/socket" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "given", "words"),
    [
        (["-", "-c", "novalue"], "1", "'novalue' is not KEY=VALUE"),
        (["-", "--timeout", "0"], "1", "'--timeout'"),
        (["-", "--backend", "podman"], "1", "'--backend'"),
        (["/no/such/file.py"], "", "/no/such/file.py"),
    ],
)
def test_wrong_usage_is_refused_by_name(
    run_command: RunCommand, arguments: list[str], given: str, words: str
) -> None:
    done = run_command("codemode", "run", *arguments, given=given)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_file_that_is_no_text_is_refused(run_command: RunCommand, tmp_path: Path) -> None:
    file = tmp_path / "picture.py"
    file.write_bytes(b"\x89PNG\xff")
    done = run_command("codemode", "run", str(file))
    assert done.returncode == 2
    assert "not UTF-8" in done.stderr
