"""Prometheus metrics of a real executor."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from codemode_executor.metrics import MetricsError, parse_address
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.cli.conftest import Serve, Serving

Values = Callable[..., float]


def address_of(executor: Serving) -> str:
    return str(executor.wait_for_line("metrics are served")[0]["address"])


def scrape(address: str) -> Values:
    """What a sample has, by its name and labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return lambda name, **labels: samples[f"codemode_{name}", *sorted(labels.items())]


def test_what_happened_is_counted(serve: Serve) -> None:
    executor = serve("--metrics", "0")
    address = address_of(executor)
    assert address.startswith("127.0.0.1:")
    with executor.connect() as codemode:
        codemode.registry.register_tool("double", lambda x: 2 * x)
        codemode.registry.register_tool("broken", lambda: 1 // 0)
        assert codemode.run("result = tools.double(x=4)").success
        assert not codemode.run("tools.broken()").success
        assert not codemode.run("raise type('Surprise', (Exception,), {})").success
        assert not codemode.run("while True: pass", execution_timeout=0.2).success
        with codemode.session() as session:
            session.run("x = 1")
            executor.wait_for_line("execution ended", 5)
            values = scrape(address)
    assert values("executions_total", outcome="success", error_type="", limit="") == 2
    assert values("executions_total", outcome="error", error_type="ToolError", limit="") == 1
    assert (
        values("executions_total", outcome="error", error_type="TimeoutError", limit="timeout_seconds") == 1
    )
    # A name that the code chose is no label.
    assert values("executions_total", outcome="error", error_type="other", limit="") == 1
    assert values("tool_calls_total", outcome="success") == 1
    assert values("tool_calls_total", outcome="error") == 1
    assert values("execution_seconds_count") == 5
    assert values("execution_seconds_sum") >= 0.2
    assert values("sandbox_start_seconds_count") >= 2
    assert values("sessions_open") == 1
    # The one that ran too long may still be on its way back.
    assert values("sandboxes", state="leased") >= 1
    assert values("journal_entries") == 5
    assert values("executions_running") == 0
    assert values("queue_length") == 0


def test_what_runs_and_what_waits_is_seen_while_it_does(serve: Serve) -> None:
    import threading

    executor = serve("--metrics", "127.0.0.1:0", "--max-sandboxes", "1")
    address = address_of(executor)
    with executor.connect() as codemode:
        may_end, running = threading.Event(), threading.Event()

        def hold() -> None:
            running.set()
            may_end.wait(20)

        codemode.registry.register_tool("hold", hold)
        threads = [threading.Thread(target=codemode.run, args=("tools.hold()",)) for _ in range(2)]
        try:
            threads[0].start()
            assert running.wait(20)
            threads[1].start()
            executor.wait_for_line("execution begins", 2)
            values = scrape(address)
        finally:
            may_end.set()
            for thread in threads:
                thread.join()
    assert values("executions_running") == 1
    assert values("queue_length") == 1
    assert values("sandboxes", state="leased") == 1
    assert values("sandboxes", state="warm") == 0


def test_they_stop_with_the_executor(serve: Serve) -> None:
    executor = serve("--metrics", "127.0.0.1:0")
    address = address_of(executor)
    executor.close()
    assert executor.process.returncode == 0
    with pytest.raises(urllib.error.URLError):
        scrape(address)


def test_a_port_that_is_taken_is_refused_by_name(serve: Serve) -> None:
    refused = pytest.raises(AssertionError, match=r"--metrics: cannot listen on 127\.0\.0\.1")
    with socket.create_server(("127.0.0.1", 0)) as taken, refused:
        serve("--metrics", f"127.0.0.1:{taken.getsockname()[1]}")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:2", ("::1", 2)),
    ],
)
def test_an_address_without_a_host_is_loopback(given: str, meant: tuple[str, int]) -> None:
    assert parse_address(given) == meant


@pytest.mark.parametrize("given", ["host", "host:", "host:70000", "host:-1", "host:²"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(MetricsError, match="HOST:PORT"):
        parse_address(given)
