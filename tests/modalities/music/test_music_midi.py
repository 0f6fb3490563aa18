import numpy as np
from music_files import TUNE, metre, midi, prepared, read_one, scale, write


class TestBadInput:
    def test_tempo_does_not_matter_and_absurd_metres_are_none(self, tmp_path):
        tempo = bytes([0xFF, 0x51, 3])
        plain = read_one(tmp_path / "plain.mid", midi(TUNE))
        for meta in (
            [(0, tempo + bytes(3))],
            [(0, tempo + b"\xff\xff\xff")],
            [(0, metre(0, 2))],
            [(0, metre(3, 255))],
        ):
            piece = read_one(tmp_path / "odd.mid", midi(TUNE, meta=meta))
            np.testing.assert_array_equal(piece.notes, plain.notes)
            assert {bar.metre for bar in piece.bars} == {""}

    def test_zero_length_notes_are_left_out_and_counted(self, folder, tmp_path):
        write(folder / "zero.mid", midi([*scale(8), (2, 0, 90)]))
        rows, _, quality = prepared(folder, tmp_path / "out")
        assert 90 not in rows["zero.mid#0"]["notes"][:, 2]
        assert quality["zero.mid"]["left_out"] == {"zero-length notes": 1}

    def test_notes_that_never_end_are_left_out_and_counted(self, tmp_path):
        content = midi([*scale(8), (8, 1, 90)])
        assert content.count(b"\x80\x5a\x00") == 1
        endless = content.replace(b"\x80\x5a\x00", b"\x80\x59\x00")  # the end is that of another pitch
        piece = read_one(tmp_path / "endless.mid", endless)
        assert len(piece.notes) == 8 and piece.left_out == {"notes that never end": 1}

    def test_overlapping_notes_of_one_pitch(self, folder, tmp_path):
        # MIDI ends the oldest of two held notes first: 0 to 2 and 1 to 3.
        write(folder / "twice.mid", midi([*scale(8), (8, 2, 60), (9, 2, 60), (12, 1, 60), (12, 1, 60)]))
        rows, _, quality = prepared(folder, tmp_path / "out", positions_per_quarter=1)
        notes = rows["twice.mid#0"]["notes"]
        assert [(onset, duration) for onset, duration, pitch, *_ in notes.tolist() if onset >= 8] == [
            (8, 1),
            (9, 2),
            (12, 1),
        ]
        assert quality["twice.mid"]["changed"] == {"doubled": 1, "struck while held": 1}
