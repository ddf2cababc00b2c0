"""The sandbox image, built if it is not there, for the tests of packaging."""

import os
from pathlib import Path

import docker
import pytest
from codemode_executor.image import build_image


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def sandbox_image(engine: docker.DockerClient) -> str:
    return build_image(engine, base_image=os.environ.get("BASE_IMAGE") or None)
