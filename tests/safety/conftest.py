"""The executors under attack, one for each backend."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from codemode import ComponentRegistry
from tests.safety.arena import Arena

# In the executor's environment; must be seen in no sandbox.
SECRET = "a-secret-that-no-sandbox-may-see"


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
        request.getfixturevalue("sandbox_image")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CODEMODE_TEST_SECRET", SECRET)
        arena = Arena(request.param, registry)
    yield arena
    arena.close()


@pytest.fixture(scope="session")
def watched_arena(registry: ComponentRegistry) -> Iterator[Arena]:
    """An executor that uses no control groups, as for a user to whom the machine gives none."""
    arena = Arena("bubblewrap", registry, control_groups=False)
    yield arena
    arena.close()
