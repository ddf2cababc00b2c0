"""The Docker Engine that is meant, and a client of it."""

import os
from typing import Any

import docker
import docker.errors
from docker.context import ContextAPI
from docker.utils import kwargs_from_env

from codemode_executor.backends.docker import explain
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
    try:
        client = docker.DockerClient(version="auto", timeout=60, **engine_address())
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise BackendError(explain(error, "")) from error
    return client
