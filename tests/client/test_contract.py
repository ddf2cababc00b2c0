"""Names, signatures and defaults that the documentation promises."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import grpc
import pytest

import codemode
from codemode import ClientConfig, Codemode, ComponentRegistry, ExecutorClient
from codemode.core.context import RuntimeContext
from codemode.errors import ConfigLoadError

EMPTY = inspect.Parameter.empty
CONFIG = {"executor_url": "http://localhost:8001", "executor_api_key": "secret-key"}


@pytest.mark.parametrize("name", codemode.__all__)
def test_everything_exported_exists(name: str) -> None:
    assert getattr(codemode, name).__name__ == name
    assert name in dir(codemode)


def test_the_exports_are_sorted_and_complete() -> None:
    assert codemode.__all__ == sorted(codemode.__all__)
    assert set(codemode.__all__) == set(codemode._HOMES)


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Codmode'"):
        _ = codemode.Codmode


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("codemode", "Codemode"),
        ("codemode.config", "ClientConfig GrpcTlsConfig CodemodeConfig ConfigLoadError"),
        ("codemode.core", "Codemode ComponentRegistry ExecutorClient RuntimeContext"),
        (
            "codemode.core.executor_client",
            "ExecutorClient ExecutorClientError ExecutorConnectionError ExecutorTimeoutError",
        ),
        (
            "codemode.core.registry",
            "ComponentRegistry RuntimeContext ComponentNotFoundError ComponentAlreadyExistsError "
            "get_current_context reset_context",
        ),
        ("codemode.core.correlation", "generate_correlation_id"),
    ],
)
def test_names_are_where_the_documentation_imports_them_from(module: str, names: str) -> None:
    imported = importlib.import_module(module)
    for name in names.split():
        assert hasattr(imported, name), f"{module}.{name}"


def parameters(function: Any, *, keyword_only: bool = False) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and (keyword_only or parameter.kind is not inspect.Parameter.KEYWORD_ONLY)
    }


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Codemode, {"config": None, "registry": None, "client_config": None, "executor_client": None}),
        (Codemode.from_client_config, {"config": None, "registry": None, "config_path": None}),
        (Codemode.from_env, {"registry": None}),
        (Codemode.from_config, {"config_path": EMPTY, "registry": None}),
        (Codemode.execute, {"code": EMPTY, "execution_timeout": None}),
        (Codemode.execute_async, {"code": EMPTY, "execution_timeout": None}),
        (Codemode.as_crewai_tool, {}),
        (Codemode.health_check, {}),
        (Codemode.ready_check, {}),
        (Codemode.close, {}),
        (
            ExecutorClient,
            {
                "executor_url": EMPTY,
                "api_key": EMPTY,
                "timeout": 35,
                "tls_config": None,
                "retry_enabled": True,
                "retry_max_attempts": 3,
                "retry_backoff_base_ms": 100,
                "retry_backoff_max_ms": 5000,
                "retry_status_codes": None,
                "include_correlation_id": True,
                "correlation_id_prefix": "cm",
            },
        ),
        *(
            (
                function,
                {
                    "code": EMPTY,
                    "available_tools": EMPTY,
                    "config": EMPTY,
                    "execution_timeout": 30,
                    "context": None,
                    "correlation_id": None,
                },
            )
            for function in (ExecutorClient.execute, ExecutorClient.execute_async)
        ),
        (ExecutorClient.close_async, {}),
        (ComponentRegistry, {}),
        (
            ComponentRegistry.register_tool,
            {
                "name": EMPTY,
                "tool": EMPTY,
                "description": None,
                "input_schema": None,
                "output_schema": None,
                "overwrite": False,
            },
        ),
        (ComponentRegistry.get_tool, {"name": EMPTY}),
        (ComponentRegistry.set_context, {"context": EMPTY}),
        (ComponentRegistry.get_context, {}),
        (ComponentRegistry.clear_context, {}),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_signatures_are_those_of_the_documentation(function: Any, expected: dict[str, Any]) -> None:
    assert parameters(function) == expected
    assert list(parameters(function)) == list(expected)


@pytest.mark.parametrize(
    ("function", "returned"),
    [
        (Codemode.execute, "str"),
        (Codemode.execute_async, "str"),
        (Codemode.health_check, "bool"),
        (Codemode.ready_check, "bool"),
        (Codemode.close, "None"),
        (Codemode.with_context, "Self"),
        (ExecutorClient.execute, "ExecutionResult"),
        (ExecutorClient.execute_async, "ExecutionResult"),
        (ComponentRegistry.get_context, "RuntimeContext | None"),
    ],
)
def test_return_types_are_those_of_the_documentation(function: Any, returned: str) -> None:
    assert inspect.signature(function).return_annotation == returned


def test_what_is_asynchronous_is_a_coroutine_function() -> None:
    for function in (Codemode.execute_async, ExecutorClient.execute_async, ExecutorClient.close_async):
        assert inspect.iscoroutinefunction(function)


def test_the_default_retry_statuses_are_those_of_the_documentation() -> None:
    client = ExecutorClient("http://localhost:8001", "secret")
    assert set(client._connection.retry.codes) == {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }


def test_other_statuses_can_be_given() -> None:
    client = ExecutorClient("http://localhost:8001", "secret", retry_status_codes=[grpc.StatusCode.ABORTED])
    assert client._connection.retry.codes == (grpc.StatusCode.ABORTED,)


def test_retries_can_be_turned_off() -> None:
    client = ExecutorClient("http://localhost:8001", "secret", retry_enabled=False, retry_max_attempts=9)
    assert client._connection.retry.max_attempts == 1


def test_an_instance_needs_a_configuration() -> None:
    with pytest.raises(ValueError, match="config or client_config"):
        Codemode()


def test_two_configurations_are_one_too_many(tmp_path: Path) -> None:
    legacy = Codemode.from_config(_legacy(tmp_path)).config
    with pytest.raises(ValueError, match="not both"):
        Codemode(config=legacy, client_config=ClientConfig(**CONFIG))  # type: ignore[arg-type]


def test_an_instance_keeps_the_client_and_the_registry_it_is_given() -> None:
    registry = ComponentRegistry()
    client = ExecutorClient("http://localhost:8001", "secret")
    codemode = Codemode(registry=registry, client_config=ClientConfig(**CONFIG), executor_client=client)  # type: ignore[arg-type]
    assert codemode.registry is registry
    assert codemode.executor_client is client
    assert client.registry is registry


def test_the_environment_configures_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODEMODE_EXECUTOR_URL", "http://executor:8001")
    monkeypatch.setenv("CODEMODE_EXECUTOR_API_KEY", "secret")
    for one in (Codemode.from_env(), Codemode.from_client_config()):
        assert one.executor_client.executor_url == "http://executor:8001"


def test_a_missing_environment_is_a_value_error_that_names_the_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CODEMODE_EXECUTOR_URL", raising=False)
    monkeypatch.delenv("CODEMODE_EXECUTOR_API_KEY", raising=False)
    for make in (Codemode.from_env, Codemode.from_client_config):
        with pytest.raises(ValueError, match="CODEMODE_EXECUTOR_URL and CODEMODE_EXECUTOR_API_KEY"):
            make()


def _legacy(folder: Path) -> Path:
    path = folder / "codemode.yaml"
    path.write_text("project:\n  name: shop\nexecutor:\n  url: http://executor:8001\n  api_key: secret-key\n")
    return path


def test_a_legacy_file_configures_an_instance(tmp_path: Path) -> None:
    codemode = Codemode.from_config(_legacy(tmp_path))
    assert codemode.config is not None
    assert codemode.config.project.name == "shop"


def test_a_legacy_file_that_is_missing_or_wrong_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Codemode.from_config(tmp_path / "nowhere.yaml")
    broken = tmp_path / "codemode.yaml"
    broken.write_text("project: [")
    with pytest.raises(ConfigLoadError):
        Codemode.from_config(str(broken))


def test_a_client_file_configures_an_instance(tmp_path: Path) -> None:
    path = tmp_path / "codemode-client.yaml"
    path.write_text("executor_url: http://executor:8001\nexecutor_api_key: secret-key\n")
    codemode = Codemode.from_client_config(config_path=path)
    assert codemode.client_config.executor_url == "http://executor:8001"


def test_with_context_sets_the_context_and_returns_the_instance() -> None:
    codemode = Codemode(client_config=ClientConfig(**CONFIG))  # type: ignore[arg-type]
    assert codemode.with_context(client_id="acme", user_id="user_123") is codemode
    assert codemode.registry.get_context() == RuntimeContext({"client_id": "acme", "user_id": "user_123"})


def test_the_crewai_tool_says_that_it_needs_crewai() -> None:
    codemode = Codemode(client_config=ClientConfig(**CONFIG))  # type: ignore[arg-type]
    with pytest.raises(ImportError, match="CrewAI"):
        codemode.as_crewai_tool()


def test_correlation_prefixes_that_make_no_sense_are_refused_by_the_client() -> None:
    with pytest.raises(ValueError, match="prefix"):
        ExecutorClient("http://localhost:8001", "secret", correlation_id_prefix="a b")
