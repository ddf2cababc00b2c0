"""Make sandboxes possible here: build the image if a Docker Engine answers, else say what is used instead.

With the variable CI set, an engine and an image are required.
"""

import os
import sys

import click
import docker
from codemode_executor.image import ImageBuildError, build_image
from docker.errors import DockerException


def main() -> int:
    """Return the exit status: 0 unless an engine is required and it or its image cannot be had."""
    required = bool(os.environ.get("CI"))
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        click.echo(_without_engine(str(error)), err=True)
        return int(required)
    try:
        tag = build_image(client, base_image=os.environ.get("BASE_IMAGE") or None, progress=_progress)
    except ImageBuildError as error:
        click.echo(f"{error}\nUntil the image is there, sandboxes use bubblewrap.", err=True)
        return int(required)
    click.echo(f"Sandbox image: {tag}")
    return 0


def _progress(line: str) -> None:
    if line.startswith("Step "):
        click.echo(line[:110])


def _without_engine(reason: str) -> str:
    if "Permission denied" in reason:
        what = "The Docker Engine refuses this user"
        cure = "To use Docker, ask for membership of its group (which is as good as root on this machine)"
    else:
        what = "No Docker Engine answers"
        cure = "To use Docker, install and start it, or set DOCKER_HOST"
    use = (
        "sandboxes use bubblewrap" if sys.platform == "linux" else "there is no other sandbox on this system"
    )
    return f"{what}: {use}. {cure}, then run this again.\n({reason})"


if __name__ == "__main__":
    sys.exit(main())
