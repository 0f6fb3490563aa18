"""Progress off a terminal: lines, few and true."""

import pytest

from seqssl.cli import terminal


def test_progress_off_a_terminal_is_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with terminal.show_progress() as progress:
        for done in range(0, 4001, 100):  # one call a second
            progress(done, 4000, "embedding")
            now[0] += 1
        progress(0, 0, "reading")
        progress(5, 0, "reading")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "embedding",
        "embedding: 1,000 of 4,000",
        "embedding: 2,000 of 4,000",
        "embedding: 3,000 of 4,000",
        "embedding: 4,000 of 4,000",
        "reading",
    ]
