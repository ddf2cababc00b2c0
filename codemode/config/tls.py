"""How a client and an executor prove to each other who they are."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["GrpcTlsConfig"]


class GrpcTlsConfig(BaseModel):
    """TLS of the connection to the executor.

    The files are checked when the configuration is made, not when the first
    connection fails, and only if TLS is enabled.

    Raises:
        pydantic.ValidationError: A file does not exist or cannot be read, or only one of
            ``cert_file`` and ``key_file`` is given; it is a ValueError.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(default=False, description="Whether to use TLS.")
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authorities that may have signed the executor's certificate; "
        "by default those that gRPC brings along.",
    )
    cert_file: Path | None = Field(
        default=None,
        description="PEM file of the client's certificate chain, for mutual TLS; needs key_file.",
    )
    key_file: Path | None = Field(
        default=None,
        description="PEM file of the client certificate's private key, for mutual TLS; needs cert_file.",
    )
    server_name: str | None = Field(
        default=None,
        min_length=1,
        description="Name to expect in the executor's certificate; by default the host of the URL.",
    )

    @model_validator(mode="after")
    def _check_files(self) -> GrpcTlsConfig:
        if not self.enabled:
            return self
        if (self.cert_file is None) != (self.key_file is None):
            given, lacking = ("cert_file", "key_file") if self.cert_file else ("key_file", "cert_file")
            raise ValueError(f"{given} is given without {lacking}; mutual TLS needs both")
        for name in ("ca_file", "cert_file", "key_file"):
            path: Path | None = getattr(self, name)
            if path is None:
                continue
            try:
                with path.open("rb"):
                    pass
            except OSError as error:
                raise ValueError(f"{name} {str(path)!r} cannot be read: {error.strerror}") from None
        return self
