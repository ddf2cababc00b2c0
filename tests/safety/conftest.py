"""The executors under attack, one for each backend."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from codemode_executor.image import find_image

from codemode import ComponentRegistry
from tests.safety.arena import Arena

# In the executor's environment; must be seen in no sandbox.
SECRET = "a-secret-that-no-sandbox-may-see"


def _unavailable(reason: str) -> None:
    # In CI a backend that cannot be had is a failure.
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _need_docker() -> None:
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        _unavailable(f"no Docker Engine answers: {error}")
        return
    try:
        if find_image(client) is None:
            _unavailable("the Docker Engine has no sandbox image of this version")
    finally:
        client.close()


async def _slow() -> None:
    await asyncio.sleep(60)


@pytest.fixture(scope="session")
def registry() -> ComponentRegistry:
    """Tools that attackers may call."""
    registry = ComponentRegistry()

    def who() -> dict[str, Any]:
        """Who calls, as the tool sees it."""
        context = registry.get_context()
        return dict(context.variables) if context is not None else {}

    registry.register_tool("who", who)
    registry.register_tool("slow", _slow)
    return registry


@pytest.fixture(scope="session", params=["docker", "bubblewrap"])
def arena(request: pytest.FixtureRequest, registry: ComponentRegistry) -> Iterator[Arena]:
    """An executor with a bystander in it."""
    if request.param == "docker":
        _need_docker()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODEMODE_TEST_SECRET", SECRET)
        arena = Arena(request.param, registry)
    yield arena
    arena.close()
