import os
import re
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codemode.core.correlation import generate_correlation_id, validate_correlation_prefix


def test_an_id_is_prefix_timestamp_and_random_part() -> None:
    before = int(time.time())
    prefix, timestamp, random_part = generate_correlation_id().split("-")
    assert prefix == "cm"
    assert before <= int(timestamp, 36) <= time.time()
    assert re.fullmatch("[0-9a-z]{4}", random_part)


def test_ids_of_threads_do_not_repeat() -> None:
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.extend(generate_correlation_id() for _ in range(5000)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == len(ids) == 20_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork with threads, from Python 3.12
def test_a_forked_process_gives_other_ids() -> None:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, " ".join(generate_correlation_id() for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = {item.rsplit("-", 1)[1] for item in os.read(read, 65536).decode().split()}
    os.close(read)
    os.close(write)
    ours = {generate_correlation_id().rsplit("-", 1)[1] for _ in range(50)}
    # The same sequence would share nearly all of them.
    assert len(theirs & ours) < 10


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", fullmatch=True))
def test_a_valid_prefix_begins_the_id(prefix: str) -> None:
    assert generate_correlation_id(prefix).startswith(f"{prefix}-")


@pytest.mark.parametrize("prefix", ["", "-a", "a b", "a\n", "é", "x" * 33])
def test_a_prefix_that_is_not_valid_is_named(prefix: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(prefix))):
        generate_correlation_id(prefix)


def test_a_prefix_is_a_string() -> None:
    with pytest.raises(TypeError, match="not int"):
        validate_correlation_prefix(3)  # type: ignore[arg-type]
