"""Choice of the backend: Docker if it answers, else bubblewrap, else a clear error."""

import asyncio
import os
import sys
from typing import Any

import docker
import docker.errors
from docker.context import ContextAPI
from docker.utils import kwargs_from_env

from codemode_executor.backends.base import Backend
from codemode_executor.config import ExecutorConfig
from codemode_executor.errors import BackendError


def engine_address() -> dict[str, Any]:
    """Where the engine is, as arguments of a client: as for the command `docker`.

    That is `DOCKER_HOST`, else the current context. Docker Desktop and rootless engines have their socket at
    another place than the usual one, and say so by a context. `docker.from_env` knows contexts from 7.2 on,
    and takes one that does not exist for the default.

    Raises:
        BackendError: The context does not exist, or its files cannot be read.
    """
    address: dict[str, Any] = {**kwargs_from_env()}
    if "base_url" in address:
        return address
    name = os.environ.get("DOCKER_CONTEXT")
    try:
        context = ContextAPI.get_context(name)
    except Exception as error:
        # The package raises Exception itself, for a file that is no JSON.
        raise BackendError(f"the current Docker context cannot be read: {error}") from error
    if context is None:
        which = f"the Docker context {name!r}" if name else "the current Docker context"
        raise BackendError(f"{which} does not exist; choose one with `docker context use`")
    address["base_url"] = context.Host
    if context.TLSConfig is not None:
        address.setdefault("tls", context.TLSConfig)
    return address


def connect_docker() -> docker.DockerClient:
    """A client of the engine that the environment names, known to answer.

    Raises:
        BackendError: It does not answer, or not to this user.
    """
    from codemode_executor.backends import docker as backend

    try:
        client = docker.DockerClient(version="auto", timeout=60, **engine_address())
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
    image: str | None = config.image or await asyncio.to_thread(find_image, client)
    if not image:
        raise BackendError("its engine has no sandbox image; build it with `codemode-executor image build`")
    info = await asyncio.to_thread(client.info)
    return DockerBackend(
        client,
        image,
        config.docker_runtime,
        config.preload,
        watch_network=info.get("CgroupVersion", "1") == "1",
    )


def _bubblewrap(config: ExecutorConfig) -> Backend:
    if sys.platform != "linux":
        raise BackendError("it needs Linux; install Docker Desktop")
    from codemode_executor.backends.bubblewrap import BubblewrapBackend
    from codemode_executor.backends.control_groups import ControlGroups

    groups = ControlGroups.find() if config.control_groups else None
    try:
        return BubblewrapBackend(config.preload, groups)
    except BackendError:
        if groups is not None:
            groups.close()
        raise
