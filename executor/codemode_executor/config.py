"""Configuration of an executor: arguments of the command, then environment, then these defaults."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from codemode_sandbox.frames import MAX_MESSAGE
from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from codemode_executor.limits import CEILINGS, FLOORS, Limits, change, flatten

# Names of tools, and of everything else in a request.
_REST_OF_REQUEST = 1 << 20
BackendName = Literal["auto", "docker", "bubblewrap"]


def _split(value: Any) -> Any:
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


# NoDecode: else the environment's value would have to be JSON.
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


def _default_ceiling() -> int:
    # Each may use its whole memory limit; leave the machine the rest.
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 8
    return max(4, min(32, int(memory * 0.6) // Limits().sandbox.memory_bytes))


class ExecutorConfig(BaseSettings):
    """Settings of one executor; each can be set as `CODEMODE_EXECUTOR_<NAME>` in the environment."""

    model_config = SettingsConfigDict(env_prefix="CODEMODE_EXECUTOR_", extra="ignore", frozen=True)

    listen: str = Field("127.0.0.1:8001", description="Address: HOST:PORT, or unix:/path/to/socket.")
    backend: BackendName = Field(
        "auto", description="Where sandboxes come from; auto takes Docker if it answers."
    )
    image: str = Field(
        "", description="Docker image of a sandbox; empty for the one built from this version."
    )
    docker_runtime: str = Field(
        "", description="OCI runtime, such as runsc for gVisor; empty for the engine's own."
    )
    control_groups: bool = Field(
        True, description="Bind bubblewrap's sandboxes by control groups, where this machine gives any."
    )
    preload: Names = Field(
        (), description="Modules loaded before code arrives, comma-separated, such as numpy,pandas."
    )
    warm: int = Field(2, ge=0, description="Sandboxes kept ready for the next owner.")
    max_sandboxes: int = Field(default_factory=_default_ceiling, ge=1, description="Most sandboxes at once.")
    sandbox_idle_seconds: float = Field(
        120.0, gt=0, description="An owner's unused sandbox is removed after this."
    )
    session_idle_seconds: float = Field(3600.0, gt=0, description="An unused session is closed after this.")
    sandbox_uses: int = Field(5000, ge=1, description="Executions after which a sandbox is replaced.")
    max_queue: int = Field(256, ge=0, description="Executions that may wait for a sandbox.")
    max_queue_per_owner: int = Field(64, ge=0, description="The same for one owner.")
    isolation_keys: Names = Field(
        ("client_id", "tenant_id", "user_id", "session_id"),
        description="Context variables whose values, with the API key's identity, make an owner.",
    )
    max_code_bytes: int = Field(1 << 20, ge=1, description="Longest code.")
    max_context_bytes: int = Field(64 << 10, description="Longest context, and longest config, as JSON.")
    max_message_bytes: int = Field(
        MAX_MESSAGE, le=MAX_MESSAGE, description="Longest message of a client, a tool's answer for instance."
    )
    journal_entries: int = Field(10_000, ge=1, description="Executions remembered.")
    journal_bytes: int = Field(256 << 20, ge=0, description="Bytes of events remembered.")
    journal_seconds: float = Field(
        900.0, ge=0, description="An execution is forgotten this long after its end."
    )
    vanished_seconds: float = Field(
        30.0, description="A stateless execution whose client vanished is killed after."
    )
    interrupt_grace_seconds: float = Field(
        2.0, description="From the interrupt of code that ran too long to its end."
    )
    tls_certificate: Path | None = Field(None, description="Server certificate chain, PEM.")
    tls_key: Path | None = Field(None, description="Private key of the certificate, PEM.")
    tls_client_ca: Path | None = Field(None, description="CA of client certificates, PEM; makes TLS mutual.")
    allow_insecure: bool = Field(False, description="Allow plain text on an address that is not loopback.")
    reflection: bool = Field(False, description="Serve gRPC reflection.")
    metrics: str = Field("", description="HOST:PORT of Prometheus metrics; empty for none.")
    timeout_seconds: float = Field(
        Limits().timeout_seconds, description="Wall time of code whose request asks for no other."
    )
    memory_bytes: int = Field(
        Limits().sandbox.memory_bytes,
        description="Memory of a sandbox, the sum over its processes and files.",
    )
    cpus: float = Field(
        Limits().sandbox.cpus, description="Processors of a sandbox; 0.5 is half the time of one."
    )
    processes: int = Field(
        Limits().sandbox.processes, description="Processes and threads of a sandbox at once."
    )
    tmp_bytes: int = Field(
        Limits().sandbox.tmp_bytes, description="Size of a sandbox's /tmp, which holds the working directory."
    )
    open_files: int = Field(
        Limits().sandbox.open_files, description="Open files of one process in a sandbox."
    )
    tmp_inodes: int = Field(
        Limits().sandbox.tmp_inodes, description="Files and directories in a sandbox's /tmp."
    )
    output_bytes: int = Field(
        Limits().output_bytes, description="Text and displays of one execution; more is cut."
    )
    result_bytes: int = Field(Limits().result_bytes, description="Result of one execution; more is cut.")
    tool_calls: int = Field(Limits().tool_calls, description="Tool calls of one execution.")
    tool_calls_per_second: int = Field(
        Limits().tool_calls_per_second, description="The same in a second; more have to wait."
    )
    max_timeout_seconds: float = Field(
        CEILINGS.timeout_seconds, description="Longest wall time that a request may ask for."
    )
    max_memory_bytes: int = Field(
        CEILINGS.sandbox.memory_bytes, description="Most memory that a request may ask for."
    )
    max_cpus: float = Field(CEILINGS.sandbox.cpus, description="Most processors that a request may ask for.")
    max_processes: int = Field(
        CEILINGS.sandbox.processes, description="Most processes that a request may ask for."
    )
    max_tmp_bytes: int = Field(
        CEILINGS.sandbox.tmp_bytes, description="Largest /tmp that a request may ask for."
    )
    max_open_files: int = Field(
        CEILINGS.sandbox.open_files, description="Most open files that a request may ask for."
    )
    max_tmp_inodes: int = Field(
        CEILINGS.sandbox.tmp_inodes, description="Most files in /tmp that a request may ask for."
    )
    max_output_bytes: int = Field(
        CEILINGS.output_bytes, description="Most output that a request may ask for."
    )
    max_result_bytes: int = Field(
        CEILINGS.result_bytes, description="Longest result that a request may ask for."
    )
    max_tool_calls: int = Field(CEILINGS.tool_calls, description="Most tool calls a request may ask for.")
    max_tool_calls_per_second: int = Field(
        CEILINGS.tool_calls_per_second, description="Most tool calls a second a request may ask for."
    )

    @model_validator(mode="after")
    def _limits_agree(self) -> Self:
        least = self.max_code_bytes + 2 * self.max_context_bytes + _REST_OF_REQUEST
        if self.max_message_bytes < least:
            raise ValueError(
                f"max_message_bytes: {self.max_message_bytes:,} is below what the longest code, context and "
                f"config need, {least:,}"
            )
        for name in flatten(Limits()):
            value, ceiling, floor = getattr(self, name), getattr(self, f"max_{name}"), FLOORS.get(name, 0)
            if not floor <= value:
                raise ValueError(f"{name}: {value:,} is below the least that works, {floor:,}")
            if not value <= ceiling:
                raise ValueError(f"{name}: {value:,} is above max_{name}, {ceiling:,}")
        return self

    @property
    def default_limits(self) -> Limits:
        """The limits of a request that asks for none."""
        return change(Limits(), {name: getattr(self, name) for name in flatten(Limits())})

    @property
    def ceilings(self) -> Limits:
        """The highest limits a request may ask for."""
        return change(CEILINGS, {name: getattr(self, f"max_{name}") for name in flatten(Limits())})
