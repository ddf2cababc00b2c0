"""The older configuration file, ``codemode.yaml``, with its sections.

It is read as it always was, and a client is then configured from what
`CodemodeConfig.to_client_config` makes of it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from codemode.config.client import (
    ApiKey,
    ClientConfig,
    RetrySettings,
    check_correlation_prefix,
    check_executor_url,
)
from codemode.config.tls import GrpcTlsConfig

__all__ = ["CodemodeConfig", "ExecutorConfig", "ProjectConfig"]


class ProjectConfig(BaseModel):
    """Section ``project``: what the project is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="Name of the project.")
    version: str = Field(default="", description="Version of the project.")
    description: str = Field(default="", description="What it is for.")


class ExecutorConfig(RetrySettings):
    """Section ``executor``: where the executor is, and how to talk to it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(check_executor_url)] = Field(description="Address of the executor.")
    api_key: Annotated[str, ApiKey] = Field(description="Key that the executor knows this client by.")
    timeout: float = Field(
        default=35, gt=0, allow_inf_nan=False, description="Seconds a request may take in all."
    )
    execution_timeout: float = Field(
        default=30, gt=0, allow_inf_nan=False, description="Seconds a piece of code may run."
    )
    max_code_length: int = Field(
        default=1_000_000, ge=1, description="Longest code that is sent, in characters."
    )
    tls: GrpcTlsConfig = Field(default_factory=GrpcTlsConfig, description="TLS of the connection.")
    include_correlation_id: bool = Field(
        default=True, description="Whether a request without a correlation id is given one."
    )
    correlation_id_prefix: Annotated[str, AfterValidator(check_correlation_prefix)] = Field(
        default="cm", description="What the correlation ids begin with."
    )


class CodemodeConfig(BaseModel):
    """The older configuration: sections ``project`` and ``executor``.

    Raises:
        pydantic.ValidationError: A value is missing or not valid; it is a ValueError.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    project: ProjectConfig = Field(description="What the project is.")
    executor: ExecutorConfig = Field(description="Where the executor is, and how to talk to it.")

    def to_client_config(self) -> ClientConfig:
        """Return the same as a ClientConfig; environment variables have no say in it."""
        fields = {name: getattr(self.executor, name) for name in ExecutorConfig.model_fields}
        for name in ("url", "api_key", "timeout"):
            fields[f"executor_{name}"] = fields.pop(name)
        return ClientConfig(**fields)
