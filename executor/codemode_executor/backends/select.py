"""Choice of the backend: Docker if it answers, else bubblewrap, else a clear error."""

import asyncio
import sys

from codemode_executor.backends.base import Backend
from codemode_executor.config import ExecutorConfig
from codemode_executor.errors import BackendError


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
    # Where bubblewrap is asked for, the package is not needed, and it is a large one.
    from codemode_executor.backends.docker import DockerBackend
    from codemode_executor.backends.engine import connect_docker
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
