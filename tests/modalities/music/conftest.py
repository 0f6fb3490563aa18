from pathlib import Path

import pytest
from music_files import ABC, SCALE, kern, metre, midi, music_xml, scale, write


@pytest.fixture
def folder(tmp_path) -> Path:
    raw = tmp_path / "raw"
    write(raw / "bach" / "bwv1.1.musicxml", music_xml(SCALE[: len(SCALE) // 2], SCALE, beats=7))
    write(raw / "bach" / "bwv1.2.mid", midi(scale(20), scale(10, 48, 2.0), meta=[(0, metre(4, 2))]))
    write(
        raw / "folk" / "two.abc",
        f"% book\nM:2/4\n\n{ABC}{'CDEF GABc|' * 3}\n\nX:2\nL:1/8\nK:D\n{'DEFG|' * 9}\n",
    )
    for name in ("kyrie", "agnus"):
        write(
            raw / "mass" / f"{name}.krn", kern(*["4c", "4d", "4e", "4f"] * 4, head="!!!OPR: Missa brevis\n")
        )
    return raw
