"""Memory that is given back and kept."""

import os
import subprocess
import sys

import pytest

from seqssl.training.allocator import keep_memory

PAGES = """
import resource
from seqssl.training.allocator import keep_memory
kept = keep_memory()
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    large = b"x" * 2**26
    del large
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(kept, [pages() for _ in range(3)][-1])
"""


def pages_cleared(**settings: str) -> tuple[bool, int]:
    """Whether memory is kept, and how many pages a large array costs that is not the first one."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", PAGES], env={**environment, **settings}, capture_output=True, text=True
    )
    kept, pages = done.stdout.split()
    return kept == "True", int(pages)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")
def test_a_large_array_gets_the_pages_of_the_one_before() -> None:
    kept, pages = pages_cleared()
    if not kept:
        pytest.skip("another C library")
    assert pages < 100


@pytest.mark.skipif(sys.platform != "linux", reason="glibc alone can be told")
def test_who_has_set_glibc_is_left_alone() -> None:
    kept, pages = pages_cleared(MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept and pages > 2**26 // 2**16  # pages may be of 64 KiB


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert keep_memory() is False
