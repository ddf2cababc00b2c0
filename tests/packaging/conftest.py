"""The real engine and the sandbox image, for the tests of packaging."""

import os
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from codemode_executor.image import build_image
from docker.errors import DockerException


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    try:
        client = docker.from_env()
        client.ping()
    except DockerException as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI needs a Docker Engine: {error}")
        pytest.skip(f"no Docker Engine answers: {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def sandbox_image(engine: docker.DockerClient) -> str:
    return build_image(engine, base_image=os.environ.get("BASE_IMAGE") or None)
