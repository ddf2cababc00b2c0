"""`codemode-executor image build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import docker
import docker.errors
import pytest
from codemode_executor.image import default_base_image, image_tag

from tests.conftest import unavailable

if TYPE_CHECKING:
    from tests.cli.conftest import RunCommand


@pytest.fixture
def built(engine: docker.DockerClient) -> str:
    """Name of the image of the present sources; a test that would build it would take minutes."""
    name = image_tag(base_image=default_base_image(engine))
    try:
        engine.images.get(name)
    except docker.errors.ImageNotFound:
        unavailable(f"the Docker Engine has no image {name}")
    return name


def test_an_image_that_is_there_is_named_at_once(run_command: RunCommand, built: str) -> None:
    done = run_command("codemode-executor", "image", "build")
    assert done.stdout == f"{built} is up to date\nSandbox image: {built}\n"
    assert (done.stderr, done.returncode) == ("", 0)


def test_a_base_image_that_cannot_be_had_says_what_to_do(
    run_command: RunCommand, built: str, tmp_path: Path
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("six\n")
    done = run_command(
        "codemode-executor", "image", "build",
        *("--base-image", "codemode.invalid/none:1", "--requirements", str(requirements)),
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout.startswith("Step 1/")
    assert done.stderr.startswith("codemode-executor: ")
    assert "--base-image" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_an_engine_it_says_so(run_command: RunCommand) -> None:
    done = run_command("codemode-executor", "image", "build", DOCKER_HOST="unix:///no/such/socket")
    assert done.returncode == 2
    assert done.stderr.startswith("codemode-executor: there is no Docker Engine here")


def test_a_requirements_file_that_is_not_there_is_named(run_command: RunCommand) -> None:
    done = run_command("codemode-executor", "image", "build", "--requirements", "/no/such/file.txt")
    assert done.returncode == 2
    assert "/no/such/file.txt" in done.stderr
