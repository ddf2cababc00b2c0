"""Who calls: API keys, each with a name."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

import grpc

from codemode_executor.errors import UnauthenticatedError

MIN_KEY_LENGTH = 16


class KeyListError(ValueError):
    """A list of API keys that cannot be used; the message never holds a key."""


class Authenticator:
    """Finds the identity behind an API key, in constant time.

    Args:
        keys: Key by identity. Only digests are kept.

    Raises:
        KeyListError: A key is too short to be secret, or given twice.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        if not keys:
            raise KeyListError("no API key: set CODEMODE_EXECUTOR_API_KEY or give --api-keys-file")
        for identity, key in keys.items():
            if len(key) < MIN_KEY_LENGTH:
                raise KeyListError(f"the API key of {identity!r} is shorter than {MIN_KEY_LENGTH} characters")
        self._digests = {identity: hashlib.sha256(key.encode()).digest() for identity, key in keys.items()}
        if len(set(self._digests.values())) != len(keys):
            raise KeyListError("two identities have the same API key")

    def identify(self, metadata: Iterable[tuple[str, str | bytes]]) -> str:
        """The identity of the caller.

        Raises:
            UnauthenticatedError: No key, or one that is not known.
        """
        for name, value in metadata:
            if name != "authorization":
                continue
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            scheme, _, key = text.partition(" ")
            if scheme.lower() != "bearer":
                raise UnauthenticatedError("authorization: `Bearer <API key>` is wanted")
            return self._match(key.strip())
        raise UnauthenticatedError("authorization: there is no API key; send `Bearer <API key>`")

    def _match(self, key: str) -> str:
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found = ""
        # All of them, so that the time tells nothing of the place.
        for identity, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = identity
        if not found:
            raise UnauthenticatedError("authorization: the API key is not known to this executor")
        return found


def read_keys(path: Path) -> dict[str, str]:
    """Read a file of lines `identity: key`; empty lines and lines that begin with # are skipped.

    Raises:
        KeyListError: A line is not of that form, or an identity comes twice.
    """
    keys: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        identity, separator, key = line.partition(":")
        if not separator or not identity.strip() or not key.strip():
            raise KeyListError(f"{path}, line {number}: `identity: key` is wanted")
        if identity.strip() in keys:
            raise KeyListError(f"{path}, line {number}: {identity.strip()!r} was named before")
        keys[identity.strip()] = key.strip()
    return keys


def server_credentials(certificate: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """TLS credentials of the server; with `client_ca` every client must show a certificate of that CA."""
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=client_ca.read_bytes() if client_ca else None,
        require_client_auth=client_ca is not None,
    )
