import os
from collections.abc import Iterator

import pytest


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment in which nothing configures Codemode; what a test sets is taken back."""
    for name in list(os.environ):
        if name.upper().startswith("CODEMODE_"):
            monkeypatch.delenv(name)
    yield monkeypatch
