"""The documentation's examples as they are printed, but for the address and the key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field

from codemode import ClientConfig, Codemode, ComponentRegistry, ExecutorClient, tool
from codemode.core.correlation import generate_correlation_id, get_correlation_id
from codemode.core.executor_client import (
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorTimeoutError,
)
from codemode.core.registry import RuntimeContext, get_current_context, reset_context
from codemode.tools import default_registry

if TYPE_CHECKING:
    from codemode.local import LocalExecutor

logger = logging.getLogger(__name__)


@pytest.fixture
def config(executor: LocalExecutor) -> ClientConfig:
    return ClientConfig(executor_url=executor.url, executor_api_key=executor.api_key)


class WeatherTool:
    def run(self, location: str) -> dict[str, Any]:
        return {"location": location, "temperature": 22}


# --- overview -----------------------------------------------------------------------------------------


def test_the_quick_example(config: ClientConfig, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        async with Codemode.from_client_config(config) as codemode:
            # Set context for this request
            codemode.with_context(
                client_id="acme",
                user_id="user_123",
            )

            # Execute code asynchronously
            result = await codemode.execute_async("""
            import json
            data = {"status": "success", "value": 42}
            result = json.dumps(data)
        """)

            print(result)  # noqa: T201 - as printed

    asyncio.run(main())
    assert json.loads(capsys.readouterr().out) == {"status": "success", "value": 42}


def test_both_kinds_of_context_manager(config: ClientConfig) -> None:
    with Codemode.from_client_config(config) as codemode:
        assert codemode.execute("result = 42") == "42"

    async def main() -> None:
        async with Codemode.from_client_config(config) as codemode:
            assert await codemode.execute_async("result = 2 + 2") == "4"

    asyncio.run(main())


def test_manual_cleanup(config: ClientConfig) -> None:
    codemode = Codemode.from_client_config(config)
    try:
        result = codemode.execute("result = 2 + 2")
    finally:
        codemode.close()
    assert result == "4"


# --- the core module ----------------------------------------------------------------------------------


def test_execute_with_tools(codemode: Codemode) -> None:
    codemode.registry.register_tool("weather", WeatherTool())
    code = """
weather = tools['weather'].run(location='NYC')
result = {'weather': weather}
"""
    assert codemode.execute(code) == "{'weather': {'location': 'NYC', 'temperature': 22}}"


def test_a_tool_with_schemas(codemode: Codemode) -> None:
    class WeatherInput(BaseModel):
        location: str = Field(..., description="City name")
        units: str = Field("celsius", description="Temperature units")

    class WeatherOutput(BaseModel):
        temperature: float = Field(..., description="Temperature value")
        conditions: str = Field(..., description="Weather conditions")

    class Weather:
        def run(self, location: str, units: str) -> WeatherOutput:
            return WeatherOutput(temperature=21.5, conditions=f"{location} in {units}")

    codemode.registry.register_tool(
        name="weather",
        tool=Weather(),
        input_schema=WeatherInput,
        output_schema=WeatherOutput,
        description="Get current weather for a location",
    )
    result = codemode.run("result = tools['weather'].run(location='NYC')")
    assert result.value == {"temperature": 21.5, "conditions": "NYC in celsius"}
    schema = codemode.run("result = tools['__schema__'].run(name='weather')").value
    assert schema["description"] == "Get current weather for a location"
    assert schema["input_schema"]["properties"]["location"]["description"] == "City name"
    assert schema["output_schema"]["required"] == ["temperature", "conditions"]


def test_a_database_tool(codemode: Codemode) -> None:
    class DatabaseTool:
        def run(self, query: str) -> list[dict[str, int]]:
            return [{"id": 1}, {"id": 2}] if query == "SELECT * FROM users" else []

    class QueryInput(BaseModel):
        query: str

    codemode.registry.register_tool(
        name="database",
        tool=DatabaseTool(),
        input_schema=QueryInput,
        description="Execute database queries",
    )
    code = """
results = tools['database'].run(query='SELECT * FROM users')
result = len(results)
"""
    assert codemode.execute(code) == "2"


def test_the_low_level_client(executor: LocalExecutor) -> None:
    registry = ComponentRegistry()
    registry.register_tool("weather", WeatherTool())

    async def execute_code() -> None:
        client = ExecutorClient(
            executor_url=executor.url, api_key=executor.api_key, retry_max_attempts=3, registry=registry
        )
        try:
            result = await client.execute_async(
                code="result = sum(range(100))",
                available_tools=["weather", "database"],
                config={},
                execution_timeout=30,
            )
            assert result.success
            assert result.result == "4950"
            assert result.correlation_id.startswith("cm-")

            result = await client.execute_async(
                code="result = [tools['weather'].run(location=context['city']), config['units']]",
                available_tools=["weather"],
                config={"units": "celsius"},
                context=RuntimeContext(variables={"city": "NYC"}),
                correlation_id="req-123",
            )
            assert result.value == [{"location": "NYC", "temperature": 22}, "celsius"]
            assert result.correlation_id == "req-123"
        finally:
            await client.close_async()

    asyncio.run(execute_code())


def test_a_client_without_a_registry_calls_the_tools_that_are_there_for_all(executor: LocalExecutor) -> None:
    @tool(overwrite=True)
    def weather(location: str) -> str:
        """The weather now, and for whom it was asked."""
        return f"{location}: {get_correlation_id()}"

    with ExecutorClient(executor_url=executor.url, api_key=executor.api_key) as client:
        result = client.execute(
            code="result = tools['weather'].run(location='NYC')",
            available_tools=["weather"],
            config={},
            correlation_id="req-abc123",
        )
    assert (result.result, result.correlation_id) == ("NYC: req-abc123", "req-abc123")
    assert get_correlation_id() == ""
    default_registry().unregister_tool("weather")


def test_the_clients_context_managers(executor: LocalExecutor) -> None:
    with ExecutorClient(executor_url=executor.url, api_key=executor.api_key) as client:
        assert client.execute("result = 1", available_tools=[], config={}).result == "1"

    async def main() -> None:
        async with ExecutorClient(executor_url=executor.url, api_key=executor.api_key) as client:
            result = await client.execute_async(code="result = 42", available_tools=[], config={})
            assert result.result == "42"

    asyncio.run(main())


def test_the_context_of_the_current_task() -> None:
    registry = ComponentRegistry()
    registry.set_context(RuntimeContext(variables={"client_id": "acme", "user_id": "user_123"}))
    context = registry.get_context()
    assert context is not None
    assert context.get("client_id") == "acme"
    assert get_current_context() == context
    reset_context()
    assert get_current_context() is None


def test_the_registered_tools_are_a_dictionary(codemode: Codemode) -> None:
    codemode.registry.register_tool("weather", tool := WeatherTool())
    assert dict(codemode.registry.tools.items()) == {"weather": tool}


def test_health_and_readiness(codemode: Codemode) -> None:
    assert codemode.health_check()
    assert codemode.ready_check()


def test_correlation_ids() -> None:
    assert generate_correlation_id().startswith("cm-")
    assert generate_correlation_id(prefix="req").startswith("req-")


# --- async patterns -----------------------------------------------------------------------------------


def test_concurrent_execution(config: ClientConfig) -> None:
    async def main() -> list[str]:
        async with Codemode.from_client_config(config) as codemode:
            # Execute multiple code blocks concurrently
            tasks = [
                codemode.execute_async("result = 1 + 1"),
                codemode.execute_async("result = 2 + 2"),
                codemode.execute_async("result = 3 + 3"),
            ]

            return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["2", "4", "6"]


def test_limited_concurrency(codemode: Codemode) -> None:
    async def rate_limited_execution(
        codemode: Codemode, codes: list[str], max_concurrent: int = 10
    ) -> list[str]:
        semaphore = asyncio.Semaphore(max_concurrent)

        async def execute_one(code: str) -> str:
            async with semaphore:
                return await codemode.execute_async(code)

        return await asyncio.gather(*[execute_one(code) for code in codes])

    codes = [f"result = {number}" for number in range(12)]
    assert asyncio.run(rate_limited_execution(codemode, codes, 4)) == [str(n) for n in range(12)]


def test_requests_of_a_web_framework(config: ClientConfig) -> None:
    """As in FastAPI: a lifespan makes the instance, and every request is a task of one loop."""
    codemode: Codemode

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        nonlocal codemode
        codemode = Codemode.from_client_config(config)
        yield
        codemode.close()

    async def execute_code(code: str, client_id: str) -> dict[str, Any]:
        # Set context for this request
        codemode.with_context(client_id=client_id)

        try:
            result = await codemode.execute_async(code)
            return {"result": result}
        except Exception as e:  # noqa: BLE001 - as printed
            return {"status_code": 500, "detail": str(e)}

    async def main() -> list[dict[str, Any]]:
        async with lifespan():
            requests = [execute_code("result = context['client_id']", client) for client in "abc"]
            return await asyncio.gather(*requests, execute_code("1 / 0", "d"))

    answers = asyncio.run(main())
    assert answers[:3] == [{"result": "a"}, {"result": "b"}, {"result": "c"}]
    assert answers[3]["status_code"] == 500
    assert "ZeroDivisionError: division by zero" in answers[3]["detail"]


def test_an_asynchronous_tool_is_preferred(codemode: Codemode) -> None:
    class AsyncDatabaseTool:
        """Tool with async run method."""

        async def run_async(self, query: str) -> list[str]:
            """Async execution method - preferred."""
            await asyncio.sleep(0)
            return ["asynchronous", query]

        def run(self, query: str) -> list[str]:
            """Sync fallback."""
            raise AssertionError("not this one")

    codemode.registry.register_tool("database", AsyncDatabaseTool())
    code = "result = tools['database'].run(query='SELECT 1')"
    assert codemode.execute(code) == "['asynchronous', 'SELECT 1']"
    assert asyncio.run(codemode.execute_async(code)) == "['asynchronous', 'SELECT 1']"


def test_errors_are_told_apart(codemode: Codemode, caplog: pytest.LogCaptureFixture) -> None:
    async def safe_execute(codemode: Codemode, code: str) -> str | None:
        try:
            return await codemode.execute_async(code, execution_timeout=1)
        except ExecutorTimeoutError:
            logger.error("Execution timed out")
            return None
        except ExecutorConnectionError:
            logger.error("Connection to executor failed")
            return None
        except ExecutorClientError as e:
            logger.error(f"Execution error: {e}")
            return None

    assert asyncio.run(safe_execute(codemode, "result = 1")) == "1"
    assert asyncio.run(safe_execute(codemode, "while True: pass")) is None
    assert asyncio.run(safe_execute(codemode, "undefined")) is None
    unreachable = Codemode(
        client_config=ClientConfig(
            executor_url="http://127.0.0.1:9", executor_api_key="secret", retry_enabled=False
        )
    )
    assert asyncio.run(safe_execute(unreachable, "result = 1")) is None
    unreachable.close()
    messages = [record.message for record in caplog.records if record.name == __name__]
    assert messages[0] == "Execution timed out"
    assert messages[1].startswith("Execution error: NameError: name 'undefined' is not defined")
    assert messages[2] == "Connection to executor failed"


def test_a_time_limit_above_the_clients_timeout_is_allowed(executor: LocalExecutor) -> None:
    async def main() -> None:
        async with ExecutorClient(executor.url, executor.api_key, timeout=35) as client:
            result = await client.execute_async(
                code="result = 1", available_tools=[], config={}, execution_timeout=120
            )
            assert result.success
            assert result.limits["timeout_seconds"] == 120

    asyncio.run(main())


def test_the_clients_timeout_does_not_bound_the_code(executor: LocalExecutor) -> None:
    with ExecutorClient(executor.url, executor.api_key, timeout=1) as client:
        code = "import time; time.sleep(1.5); result = 'done'"
        assert client.execute(code, [], {}, execution_timeout=10).result == "done"


def test_an_asyncio_timeout_around_an_execution(codemode: Codemode) -> None:
    async def execute_with_timeout(codemode: Codemode, code: str, timeout: float) -> str:  # noqa: ASYNC109
        try:
            return await asyncio.wait_for(
                codemode.execute_async(code),
                timeout=timeout,
            )
        except asyncio.TimeoutError:  # noqa: UP041 - as printed
            raise ExecutorTimeoutError("Client-side timeout exceeded") from None

    assert asyncio.run(execute_with_timeout(codemode, "result = 1", 10)) == "1"
    with pytest.raises(ExecutorTimeoutError, match="Client-side"):
        asyncio.run(execute_with_timeout(codemode, "import time; time.sleep(60)", 0.3))
