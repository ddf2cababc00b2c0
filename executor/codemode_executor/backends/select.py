"""Choice of the backend: Docker if it answers, else bubblewrap, else a clear error."""

import asyncio
import sys

import docker
import docker.errors

from codemode_executor.backends.base import Backend
from codemode_executor.config import ExecutorConfig
from codemode_executor.errors import BackendError


def connect_docker() -> docker.DockerClient:
    """A client of the engine that the environment names, known to answer.

    Raises:
        BackendError: It does not answer, or not to this user.
    """
    from codemode_executor.backends import docker as backend

    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise BackendError(backend.explain(error, "")) from error
    return client


async def choose_backend(config: ExecutorConfig) -> Backend:
    """Make the backend that the configuration names.

    Raises:
        BackendError: It cannot be had; for `auto`, neither can, and the message says why of both.
    """
    reasons = []
    if config.backend in ("auto", "docker"):
        try:
            return await _docker(config)
        except BackendError as error:
            if config.backend == "docker":
                raise
            reasons.append(f"Docker: {error}")
    try:
        return _bubblewrap(config)
    except BackendError as error:
        if config.backend == "bubblewrap":
            raise
        reasons.append(f"bubblewrap: {error}")
    raise BackendError(
        "no sandbox is possible on this machine, and code is never run without one. " + "; ".join(reasons)
    )


async def _docker(config: ExecutorConfig) -> Backend:
    from codemode_executor.backends.docker import DockerBackend
    from codemode_executor.image import find_image

    client = await asyncio.to_thread(connect_docker)
    image = config.image or await asyncio.to_thread(find_image, client)
    if not image:
        raise BackendError("its engine has no sandbox image; build it with `codemode-executor image build`")
    return DockerBackend(client, image, config.docker_runtime, config.preload)


def _bubblewrap(config: ExecutorConfig) -> Backend:
    if sys.platform != "linux":
        raise BackendError("it needs Linux; install Docker Desktop")
    from codemode_executor.backends.bubblewrap import BubblewrapBackend

    return BubblewrapBackend(config.preload)
