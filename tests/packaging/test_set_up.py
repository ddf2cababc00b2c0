"""The commands of a fresh clone: make targets, pins, and what is said where something is missing."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement


def test_the_readme_names_the_two_commands_and_they_exist(repository: Path) -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)", (repository / "README.md").read_text()))
    assert {"demo", "test"} <= named
    for target in named:
        subprocess.run(["make", "-n", target], cwd=repository, check=True, capture_output=True)


def test_help_lists_every_target(repository: Path) -> None:
    listed = subprocess.run(["make"], cwd=repository, check=True, capture_output=True, text=True).stdout
    targets = re.search(r"^\.PHONY: (.*)$", (repository / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    assert sorted(re.findall(r"^  make ([a-z-]+)", listed, re.MULTILINE)) == sorted(targets[1].split())


def test_every_dependency_is_pinned_to_a_version_that_fits(repository: Path) -> None:
    pins: dict[str, list[Requirement]] = {}
    for line in (repository / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            pins.setdefault(_plain(pin.name), []).append(pin)
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    wanted = [
        Requirement(text)
        for group in (project["dependencies"], *project["optional-dependencies"].values())
        for text in group
    ]
    missing = []
    for need in wanted:
        if need.name == project["name"]:
            continue
        fitting = [
            pin
            for pin in pins.get(_plain(need.name), [])
            if all(need.specifier.contains(one.version, prereleases=True) for one in pin.specifier)
        ]
        if not fitting:
            missing.append(str(need))
    assert not missing, "run `make lock`"


def test_pins_hold_for_the_python_that_runs_this(repository: Path) -> None:
    seen: dict[str, str] = {}
    environment = {key: str(value) for key, value in default_environment().items()}
    for line in (repository / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate(environment):
                assert _plain(pin.name) not in seen, f"{pin.name} is pinned twice"
                seen[_plain(pin.name)] = str(pin.specifier)


def test_pins_name_no_host(repository: Path) -> None:
    assert not re.search(r"://|--|\s@\s", (repository / "constraints.txt").read_text())


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_without_an_engine_it_is_said_what_is_used(
    repository: Path, tmp_path: Path, ci: str, status: int
) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/set_up_sandbox.py"],
        cwd=repository,
        env=os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/nothing.sock", "CI": ci},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status
    assert "No Docker Engine answers" in done.stderr
    assert "bubblewrap" in done.stderr or sys.platform != "linux"


@pytest.mark.parametrize("python", ["/nonexistent/python3", "old"])
def test_a_python_that_will_not_do_is_named(repository: Path, tmp_path: Path, python: str) -> None:
    old = tmp_path / "old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.6" || exit 1\n')
    old.chmod(0o755)
    done = subprocess.run(
        ["scripts/install", str(tmp_path / "venv")],
        cwd=repository,
        env=os.environ | {"PYTHON": str(old) if python == "old" else python},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "make PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
