"""Configuration of an executor: arguments of the command, then environment, then these defaults."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from codemode_executor.limits import CEILINGS, Limits, change, flatten

BackendName = Literal["auto", "docker", "bubblewrap"]


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
    preload: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Modules loaded before code arrives, comma-separated, such as numpy,pandas."
    )
    warm: int = Field(2, ge=0, description="Sandboxes kept ready for the next owner.")
    max_sandboxes: int = Field(default_factory=_default_ceiling, ge=1, description="Most sandboxes at once.")
    sandbox_idle_seconds: float = Field(
        120.0, gt=0, description="An owner's unused sandbox is removed after this."
    )
    session_idle_seconds: float = Field(3600.0, gt=0, description="An unused session is closed after this.")
    sandbox_uses: int = Field(500, ge=1, description="Executions after which a sandbox is replaced.")
    max_queue: int = Field(256, ge=0, description="Executions that may wait for a sandbox.")
    max_queue_per_owner: int = Field(64, ge=0, description="The same for one owner.")
    isolation_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        ("client_id", "tenant_id", "user_id", "session_id"),
        description="Context variables whose values, with the API key's identity, make an owner.",
    )
    max_code_bytes: int = Field(1 << 20, description="Longest code.")
    max_context_bytes: int = Field(64 << 10, description="Longest context, and longest config, as JSON.")
    max_message_bytes: int = Field(
        64 << 20, description="Longest message on the wire, tool arguments included."
    )
    journal_entries: int = Field(10_000, description="Executions remembered.")
    journal_bytes: int = Field(256 << 20, description="Bytes of events remembered.")
    journal_seconds: float = Field(900.0, description="An execution is forgotten this long after its end.")
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
    timeout_seconds: float = Limits().timeout_seconds
    memory_bytes: int = Limits().sandbox.memory_bytes
    cpus: float = Limits().sandbox.cpus
    processes: int = Limits().sandbox.processes
    tmp_bytes: int = Limits().sandbox.tmp_bytes
    max_timeout_seconds: float = CEILINGS.timeout_seconds
    max_memory_bytes: int = CEILINGS.sandbox.memory_bytes
    max_cpus: float = CEILINGS.sandbox.cpus
    max_processes: int = CEILINGS.sandbox.processes
    max_tmp_bytes: int = CEILINGS.sandbox.tmp_bytes

    @property
    def default_limits(self) -> Limits:
        """The limits of a request that asks for none."""
        return change(Limits(), {name: getattr(self, name) for name in _SETTABLE})

    @property
    def ceilings(self) -> Limits:
        """The highest limits a request may ask for."""
        return change(CEILINGS, {name: getattr(self, f"max_{name}") for name in _SETTABLE})


_SETTABLE = [name for name in flatten(Limits()) if f"max_{name}" in ExecutorConfig.model_fields]
