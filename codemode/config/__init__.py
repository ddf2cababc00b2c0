"""Configuration: of a client, from parameters, a YAML file and the environment."""

from codemode.config.client import ApiKey, ClientConfig, RetrySettings
from codemode.config.legacy import CodemodeConfig, ExecutorConfig, ProjectConfig
from codemode.config.loader import load_client_config, load_config
from codemode.config.tls import GrpcTlsConfig
from codemode.errors import ConfigError, ConfigFileNotFoundError, ConfigLoadError

__all__ = [
    "ApiKey",
    "ClientConfig",
    "CodemodeConfig",
    "ConfigError",
    "ConfigFileNotFoundError",
    "ConfigLoadError",
    "ExecutorConfig",
    "GrpcTlsConfig",
    "ProjectConfig",
    "RetrySettings",
    "load_client_config",
    "load_config",
]
