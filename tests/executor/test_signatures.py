"""Signatures made from their text, which comes over the wire."""

from __future__ import annotations

import pytest
from codemode_sandbox.signatures import parse_signature
from hypothesis import given
from hypothesis import strategies as st

ANYTHING = "(*args, **kwargs)"


@pytest.mark.parametrize(
    "text",
    [
        "()",
        "(location: str, units: str = 'celsius') -> dict",
        "(a, b=1, /, c: int | None = None, *rest: str, d, e: list[dict[str, int]] = [], **more) -> None",
        "(*, only_by_name)",
        "(location: Literal['Oslo', 'Lima'] = 'Oslo') -> tuple[int, ...]",
    ],
)
def test_a_signature_reads_as_its_text(text: str) -> None:
    assert str(parse_signature(text)) == text


def test_nothing_in_it_is_evaluated() -> None:
    assert str(parse_signature("(x=1/0) -> open('/etc/passwd')")) == "(x=1 / 0) -> open('/etc/passwd')"


@pytest.mark.parametrize(
    "text", ["", "no signature", "(a, a)", "(a=1, b)", "(" * 5000, "(a): 1\nimport os\n#"]
)
def test_what_is_no_signature_takes_anything(text: str) -> None:
    assert str(parse_signature(text)) in (ANYTHING, "(a)")


@given(st.text())
def test_whatever_comes_there_is_a_signature(text: str) -> None:
    assert str(parse_signature(text)).startswith("(")
