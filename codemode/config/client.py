"""The configuration of a client: where the executor is, and how to talk to it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    GetCoreSchemaHandler,
    SecretStr,
)
from pydantic_core import CoreSchema, core_schema
from pydantic_settings import BaseSettings, SettingsConfigDict

from codemode.config.tls import GrpcTlsConfig
from codemode.errors import ConfigLoadError

__all__ = [
    "ENV_PREFIX",
    "ApiKey",
    "ClientConfig",
    "RetrySettings",
    "check_correlation_prefix",
    "check_executor_url",
]

ENV_PREFIX = "CODEMODE_"
_REQUIRED = ("executor_url", "executor_api_key")
_SCHEMES = ("http", "https", "grpc", "grpcs", "dns", "unix")
_URL = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):(?://)?(?=\D))?(?P<rest>\S+)")


def _revealed(key: object) -> object:
    return key.get_secret_value() if isinstance(key, SecretStr) else key


def _checked_key(key: str) -> ApiKey:
    # It becomes a header; gRPC's own error for such a one would quote the key.
    if not key or not key.isascii() or not key.isprintable() or key != key.strip():
        raise ValueError(
            "an API key is not empty, and of printable ASCII characters without spaces around it"
        )
    return ApiKey(key)


class ApiKey(str):
    """An API key: a string that does not show itself.

    It is a ``str`` wherever one is wanted, in a header or a comparison. Its
    ``repr()``, and JSON made from a configuration, show asterisks.
    """

    __slots__ = ()

    def get_secret_value(self) -> str:
        """Return the key as a plain string, as pydantic's SecretStr does."""
        return str.__str__(self)

    def __repr__(self) -> str:
        """Return asterisks."""
        return "ApiKey('**********')"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell pydantic how to read a key, and not to write it into JSON."""
        return core_schema.no_info_before_validator_function(
            _revealed,
            core_schema.no_info_after_validator_function(_checked_key, core_schema.str_schema()),
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda _key: "**********", when_used="json"
            ),
        )


class RetrySettings(BaseModel):
    """How a request that failed on its way is tried again."""

    retry_enabled: bool = Field(default=True, description="Whether to try again at all.")
    retry_max_attempts: int = Field(
        default=3, ge=1, le=100, description="How often a request is tried, the first time included."
    )
    retry_backoff_base_ms: int = Field(
        default=100,
        ge=0,
        description="Milliseconds before the second attempt; doubled before each further one.",
    )
    retry_backoff_max_ms: int = Field(
        default=5000, ge=0, description="Longest wait between two attempts, in milliseconds."
    )
    retry_jitter: bool = Field(
        default=False,
        description="Whether to wait a random part of that time, so that many clients do not come back "
        "at once.",
    )


def check_executor_url(url: str) -> str:
    """Return the URL of an executor, without spaces around it.

    Raises:
        ValueError: It is empty, or of a scheme that is not one of an executor.
    """
    url = url.strip()
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("the URL is empty or has spaces; write it as http://host:port")
    scheme = match["scheme"]
    if scheme is not None and scheme.lower() not in _SCHEMES:
        raise ValueError(f"the URL has the scheme {scheme!r}; use one of {', '.join(_SCHEMES)}")
    return url


def check_correlation_prefix(prefix: str) -> str:
    """Return the prefix if correlation ids may begin with it, see `validate_correlation_prefix`.

    Raises:
        ValueError: They may not.
    """
    # Imported here so that configuration can be imported before, and by, codemode.core.
    from codemode.core.correlation import validate_correlation_prefix

    return validate_correlation_prefix(prefix)


class ClientConfig(RetrySettings, BaseSettings):
    """Where the executor is, and how to talk to it.

    What is not given as a parameter is read from the environment variable of the
    same name with ``CODEMODE_`` before it, such as ``CODEMODE_EXECUTOR_URL`` or
    ``CODEMODE_TLS__CA_FILE``.

    Raises:
        pydantic.ValidationError: A value is missing or not valid; it is a ValueError.
    """

    # Errors would otherwise quote what was given, the API key with it.
    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    executor_url: Annotated[str, AfterValidator(check_executor_url)] = Field(
        description="Address of the executor: http://host:port, https://host:port, host:port or unix:/path."
    )
    executor_api_key: Annotated[str, ApiKey] = Field(
        description="Key that the executor knows this client by."
    )
    executor_timeout: float = Field(
        default=35,
        gt=0,
        allow_inf_nan=False,
        description="Seconds a request may take in all; give it more than execution_timeout.",
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

    @classmethod
    def from_env(cls, **parameters: Any) -> ClientConfig:
        """Read the configuration from environment variables.

        Args:
            **parameters: Fields that are given here instead.

        Raises:
            ConfigLoadError: Required variables are not set, and named, or a variable
                has a value that is not valid; it is a ValueError.
        """
        # Imported here because the loader imports this module.
        from codemode.config.loader import valid_client_config

        present = {name.upper() for name, value in os.environ.items() if value}
        names = [f"{ENV_PREFIX}{field.upper()}" for field in _REQUIRED if field not in parameters]
        missing = [name for name in names if name not in present]
        if missing:
            plural = len(missing) > 1
            raise ConfigLoadError(
                f"the environment variable{'s' if plural else ''} {' and '.join(missing)} "
                f"{'are' if plural else 'is'} not set; set {'them' if plural else 'it'}, or configure the "
                "client by ClientConfig(executor_url=..., executor_api_key=...) or a codemode-client.yaml",
                keys=tuple(missing),
            )
        return valid_client_config(cls, parameters, source="the environment")

    @classmethod
    def from_yaml(cls, path: str | Path, **parameters: Any) -> ClientConfig:
        """Read the configuration from a YAML file, see `load_client_config`.

        Args:
            path: The file.
            **parameters: Fields that are given here instead.

        Raises:
            FileNotFoundError: There is no such file.
            ConfigLoadError: The file is not valid; it is a ValueError.
        """
        from codemode.config.loader import load_client_config

        return load_client_config(path, **parameters)
