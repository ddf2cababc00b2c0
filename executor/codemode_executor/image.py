"""The sandbox image: its name, finding it, and building it.

An image is named for a digest of all it was made from, so an image made from other sources is never taken for
the present one, and building what is there already costs one look-up.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import docker
import requests
from docker.errors import APIError, ImageNotFound

from codemode_executor.build_environment import build_arguments, host_certificates
from codemode_executor.image_context import ImageContext

REPOSITORY = "codemode-sandbox"
DEFAULT_BASE_IMAGE = "python:3.12-slim"
LOCAL_BASE_IMAGE = "codemode-base:bookworm"
"""What `make base-image` makes from Debian packages, for machines that reach no image registry."""

RECIPE_LABEL = "codemode.sandbox.recipe"
"""Label with the digest of the sources: images that differ only in base and requirements share it."""

_NEWEST = f"{REPOSITORY}:latest"
_LAST_LINES = 15
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ImageBuildError(RuntimeError):
    """The sandbox image could not be built.

    Attributes:
        step: The step of the Dockerfile that failed, or an empty string if none had begun.
        output: The last lines of the build's output.
    """

    def __init__(self, message: str, *, step: str = "", output: str = "") -> None:
        """Keep where the build stopped and what it printed last."""
        super().__init__(message)
        self.step = step
        self.output = output


def image_tag(requirements: bytes = b"", base_image: str = DEFAULT_BASE_IMAGE) -> str:
    """Name the image for the present sources, `codemode-sandbox:` and 12 hexadecimal digits.

    The digits change with the Dockerfile, the constraints, any file of the runner, the base image's name and
    the bytes of `requirements`.
    """
    return _tag(ImageContext.read(), requirements, base_image)


def find_image(client: docker.DockerClient) -> str | None:
    """Return the name of the image to run sandboxes from, or None if none fits the present sources.

    The one built last is preferred, so that `image build --requirements` decides what every sandbox has.
    """
    recipe = ImageContext.read().digest()
    fitting = client.images.list(REPOSITORY, filters={"label": f"{RECIPE_LABEL}={recipe}"})
    fitting.sort(key=lambda image: (_NEWEST in image.tags, image.attrs["Created"]), reverse=True)
    names = [tag for image in fitting for tag in image.tags if tag.startswith(REPOSITORY) and tag != _NEWEST]
    return names[0] if names else None


def default_base_image(client: docker.DockerClient) -> str:
    """Choose `python:3.12-slim`, or the image of `make base-image` on a machine that has only that one."""
    if not _exists(client, DEFAULT_BASE_IMAGE) and _exists(client, LOCAL_BASE_IMAGE):
        return LOCAL_BASE_IMAGE
    return DEFAULT_BASE_IMAGE


def build_image(
    client: docker.DockerClient,
    *,
    base_image: str | None = None,
    requirements: bytes = b"",
    network_host: bool = True,
    progress: Callable[[str], None] = lambda line: None,
) -> str:
    """Build the sandbox image, unless it is there already, and return its name.

    Args:
        client: The engine to build with.
        base_image: An image with Python 3.11 or newer and its venv module; by default `default_base_image`.
        requirements: A `requirements.txt` of packages to add; it may override the pinned versions.
        network_host: Whether build steps use the host's network. What reaches a package index from the host
            then does so from the build too, be it through a local proxy, a VPN or the host's name server.
        progress: Called with each line of the build's output.

    Raises:
        ImageBuildError: A step failed; the message says which, shows the last lines and what to do.
    """
    base_image = base_image or default_base_image(client)
    # Read once: an edit while the build runs must not end up under the name of what was there before.
    context = ImageContext.read()
    tag = _tag(context, requirements, base_image)
    if _exists(client, tag):
        progress(f"{tag} is up to date")
    else:
        try:
            events = client.api.build(
                fileobj=context.archive(requirements, host_certificates()),
                custom_context=True,
                decode=True,
                tag=tag,
                target="sandbox",
                buildargs=build_arguments() | {"BASE_IMAGE": base_image},
                labels={RECIPE_LABEL: context.digest()},
                network_mode="host" if network_host else None,
                rm=True,
                forcerm=True,
            )
            _follow(events, base_image, progress)
        except (APIError, requests.RequestException) as error:
            raise ImageBuildError(
                f"The Docker Engine gave up on building the sandbox image: {error}\n"
                "Check it with `docker info` and build again."
            ) from error
    client.images.get(tag).tag(_NEWEST)
    return tag


def _tag(context: ImageContext, requirements: bytes, base_image: str) -> str:
    return f"{REPOSITORY}:{context.digest(base_image.encode(), requirements)[:12]}"


def _exists(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True


def _follow(events: Iterator[dict[str, Any]], base_image: str, progress: Callable[[str], None]) -> None:
    step = reason = ""
    last: deque[str] = deque(maxlen=_LAST_LINES)
    # To the end, even past an error: what is left unread would leave the connection open.
    for event in events:
        reason = reason or str(event.get("error", ""))
        for line in _lines(event):
            if line.startswith("Step "):
                step = line
                last.clear()
            else:
                last.append(line)
            progress(line)
    if reason:
        raise _failure(base_image, step, "\n".join(last), reason)


def _lines(event: dict[str, Any]) -> list[str]:
    if "stream" in event:
        text = _COLOUR.sub("", str(event["stream"]))
        return [line.rstrip() for line in text.splitlines() if line.strip()]
    # Pulling the base image reports every layer many times a second; its begin and end are enough.
    if "status" in event and "progress" not in event:
        return [" ".join(str(event[key]) for key in ("id", "status") if event.get(key))]
    return []


def _failure(base_image: str, step: str, output: str, reason: str) -> ImageBuildError:
    if not step or " : FROM " in step:
        advice = (
            f"The base image {base_image} could not be had. If this machine reaches no image registry, make\n"
            "one from Debian packages with `make base-image`, or name one the engine has with `--base-image`."
        )
    elif " install " in step:
        advice = (
            "Packages could not be installed. If the output names a requirement, correct it. If the index\n"
            "was not reached, set HTTPS_PROXY, PIP_INDEX_URL or PIP_CERT (a bundle of CA certificates) as\n"
            "pip needs them on this machine, and build again."
        )
    else:
        advice = "The base image has to be Debian or Ubuntu with Python 3.11 or newer and its venv module."
    where = f" at {step}" if step else ""
    message = f"The sandbox image could not be built{where}:\n{output}\n{reason.strip()}\n{advice}"
    return ImageBuildError(message, step=step, output=output)
