"""Who a sandbox is for."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codemode_executor.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Owner:
    """An API key's identity with the values of the context's isolation keys.

    Attributes:
        identity: Name of the API key.
        isolation: JSON of the isolation keys present, sorted by name.
    """

    identity: str
    isolation: str

    def __str__(self) -> str:
        """For logs: tells owners apart without the values of the context."""
        digest = hashlib.sha256(f"{self.identity}\0{self.isolation}".encode()).hexdigest()
        return f"{self.identity}/{digest[:12]}"

    def differs_in(self, other: "Owner") -> list[str]:
        """Names of the isolation keys whose values differ."""
        mine, theirs = json.loads(self.isolation), json.loads(other.isolation)
        return sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))


def parse_object(text: str, name: str, limit: int) -> dict[str, Any]:
    """Decode a JSON object of a request.

    Raises:
        InvalidRequestError: It is too long, or not an object; the message names the field.
    """
    if (length := len(text.encode())) > limit:
        raise InvalidRequestError(f"{name}: {length:,} bytes are above the limit of {limit:,}; send less")
    if not text:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name}: not JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{name}: a JSON object is wanted, not {type(value).__name__}")
    return value


def owner_of(identity: str, context: Mapping[str, Any], isolation_keys: Sequence[str]) -> Owner:
    """The owner of a request from an authenticated caller."""
    isolation = {key: context[key] for key in sorted(isolation_keys) if context.get(key) is not None}
    return Owner(identity, json.dumps(isolation, sort_keys=True))
