"""Both doctors, on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from codemode_executor import machine
from codemode_executor.doctor_words import in_words

if TYPE_CHECKING:
    from tests.cli.conftest import RunCommand, Serving


@pytest.fixture(scope="module")
def report(run_command: RunCommand) -> Any:
    """What `codemode-executor doctor --json` says."""
    done = run_command("codemode-executor", "doctor", "--json")
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["works"] else 1)
    return found


def check_backend(backend: dict[str, Any]) -> None:
    assert backend["works"], backend["reason"]
    trial = backend["trial"]
    assert 0 < trial["start_ms"] < 30_000
    assert 0 < trial["execution_ms"] < 10_000
    assert trial["python"].startswith("3.")
    assert (trial["seccomp"], trial["no_new_privileges"], trial["capabilities"]) == ("filter", True, "none")
    assert {name: limit["value"] for name, limit in backend["limits"].items()} == {
        "memory_bytes": 512 << 20,
        "cpus": 1.0,
        "processes": 128,
        "open_files": 1024,
        "tmp_bytes": 256 << 20,
        "tmp_inodes": 16_384,
    }
    assert all(limit["enforced"] for limit in backend["limits"].values())


def test_bubblewrap_works_here(report: Any) -> None:
    backend = report["backends"]["bubblewrap"]
    check_backend(backend)
    assert backend["details"]["version"][0].isdigit()
    # Who has no control groups is told how to get them.
    bound = "control group" in backend["limits"]["memory_bytes"]["enforced"]
    assert bound != any("Delegate=yes" in advice for advice in backend["advice"])


@pytest.mark.usefixtures("sandbox_image")
def test_docker_works_here(report: Any) -> None:
    backend = report["backends"]["docker"]
    check_backend(backend)
    assert backend["details"]["image_state"] == "present"
    assert backend["details"]["runtimes"]
    assert report["backend"] == "docker"


def test_the_text_says_the_same(report: Any) -> None:
    said = in_words(report)
    for name, backend in report["backends"].items():
        assert (f"{name}: works" in said) == backend["works"]
        for limit in backend["limits"]:
            assert f"  {limit} " in said
    assert f"takes {report['backend']}" in said


def test_without_an_engine_it_says_what_to_install(run_command: RunCommand) -> None:
    done = run_command("codemode-executor", "doctor", DOCKER_HOST="unix:///no/such/socket")
    assert done.returncode == 0
    assert "docker: does not work: there is no Docker Engine here" in done.stdout
    assert "install and start Docker Engine" in done.stdout
    assert "`--backend auto` takes bubblewrap." in done.stdout


@pytest.mark.usefixtures("sandbox_image")
def test_an_image_that_is_missing_is_named(run_command: RunCommand) -> None:
    done = run_command("codemode-executor", "doctor", "--json", CODEMODE_EXECUTOR_IMAGE="no-such-image:1")
    backend = json.loads(done.stdout)["backends"]["docker"]
    assert not backend["works"]
    assert "no-such-image:1" in backend["reason"]
    assert backend["details"]["image_state"] == "missing"
    assert any("codemode-executor image build" in advice for advice in backend["advice"])


def test_settings_of_the_environment_are_checked(run_command: RunCommand) -> None:
    done = run_command("codemode-executor", "doctor", CODEMODE_EXECUTOR_CPUS="many")
    assert done.returncode == 2
    assert "--cpus (from CODEMODE_EXECUTOR_CPUS)" in done.stderr


def test_what_forbids_namespaces_is_told() -> None:
    facts: Any = machine.describe() | {
        "root": False,
        "container": "docker",
        "max_user_namespaces": 0,
        "unprivileged_user_namespaces": False,
        "apparmor_restricts_user_namespaces": True,
    }
    said = " ".join(machine.advice(facts))
    for word in ("max_user_namespaces", "unprivileged_userns_clone", "AppArmor", "container (docker)"):
        assert word in said


# --- codemode doctor ----------------------------------------------------------------------------


def test_an_executor_that_works_is_tried(run_command: RunCommand, serving: Serving) -> None:
    done = run_command(
        "codemode", "doctor", "--json",
        CODEMODE_EXECUTOR_URL=serving.url, CODEMODE_EXECUTOR_API_KEY=serving.key,
    )  # fmt: skip
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["executor"] == {
        "configured": True, "url": serving.url, "healthy": True, "ready": True, "problem": ""
    }  # fmt: skip
    assert found["machine"]["works"]
    assert serving.key not in done.stdout


def test_a_wrong_key_is_told_from_an_executor_that_is_away(run_command: RunCommand, serving: Serving) -> None:
    wrong = run_command(
        "codemode", "doctor", CODEMODE_EXECUTOR_URL=serving.url, CODEMODE_EXECUTOR_API_KEY="k" * 20
    )
    assert wrong.returncode == 1
    assert "API key" in wrong.stdout
    away = run_command(
        "codemode", "doctor",
        CODEMODE_EXECUTOR_URL="http://127.0.0.1:1", CODEMODE_EXECUTOR_API_KEY="k" * 20,
    )  # fmt: skip
    assert away.returncode == 1
    assert "at http://127.0.0.1:1 does not work: nothing answers" in away.stdout


def test_without_a_configured_executor_the_machine_decides(run_command: RunCommand) -> None:
    done = run_command("codemode", "doctor")
    assert done.returncode == 0
    assert done.stdout.startswith("No executor is configured")
    assert "bubblewrap: works" in done.stdout
