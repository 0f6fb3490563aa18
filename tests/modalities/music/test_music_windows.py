from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from music_files import KERN, TUNE, metre, midi, prepared, read_one, scale, write

from modalities.music.pieces import Bar, Piece, regular_bars
from modalities.music.views import note_tokens
from modalities.music.windows import Grid, cut


def pieces() -> st.SearchStrategy[Piece]:
    """Pieces on a grid of 1/4 quarter, with bars of changing length."""

    @st.composite
    def draw(data) -> Piece:
        sizes = data(
            st.lists(st.sampled_from([(2.0, "2/4"), (3.0, "3/4"), (1.5, "3/8")]), min_size=1, max_size=9)
        )
        starts = np.cumsum([0.0, *(quarters for quarters, _ in sizes)])
        bars = [
            Bar(float(start), float(start), name) for start, (_, name) in zip(starts, sizes, strict=False)
        ]
        end = int(starts[-1] * 4)
        note = st.tuples(st.integers(0, end - 1), st.integers(1, 12), st.integers(58, 64), st.integers(0, 2))
        found = data(st.lists(note, min_size=1, max_size=30))
        rows = [(onset / 4, duration / 4, pitch, part) for onset, duration, pitch, part in sorted(found)]
        return Piece(np.array(rows, dtype=np.float64).reshape(-1, 4), bars, "", "", {})

    return draw()


class TestWindows:
    @given(pieces(), st.integers(1, 40))
    def test_they_tile_the_piece(self, piece, size):
        grid = Grid.of(piece, positions=4, lowest=0, highest=127)
        windows = list(grid.windows(size))
        onsets, ends = grid.notes[:, 0], grid.notes[:, 0] + grid.notes[:, 1]
        assert windows[0].start <= onsets.min() and windows[-1].stop == ends.max()
        assert windows[0].start in grid.bars
        for before, after in pairwise(windows):
            assert before.stop == after.start
            nearby = [line for line in grid.bars if before.start < line <= before.start + size]
            assert before.stop in grid.bars or not nearby
        assert all(0 < window.stop - window.start <= size for window in windows)
        assert sum(window.num_onsets for window in windows) == len(grid.notes)
        for window in windows:
            sounding = {
                (onset - window.start, duration, pitch, part)
                for onset, duration, pitch, part, _ in grid.notes.tolist()
                if onset < window.stop and onset + duration > window.start
            }
            assert {tuple(note[:4]) for note in window.notes.tolist()} == sounding

    @given(pieces())
    def test_sound_is_kept_by_the_grid(self, piece):
        """Which part sounds which pitch when is not changed by cutting notes that are struck again."""
        grid = Grid.of(piece, positions=4, lowest=0, highest=127)

        def sounding(rows) -> set:
            return {
                (part, pitch, step)
                for onset, duration, pitch, part in rows
                for step in range(int(onset), int(onset + duration))
            }

        written = [(onset * 4, duration * 4, pitch, part) for onset, duration, pitch, part in piece.notes]
        assert sounding(grid.notes[:, :4].tolist()) == sounding(written)
        starts = {(onset * 4, pitch, part) for onset, _, pitch, part in piece.notes.tolist()}
        assert {(onset, pitch, part) for onset, _, pitch, part, _ in grid.notes.tolist()} == starts

    @given(
        st.lists(st.tuples(st.floats(0, 50), st.floats(0.01, 9)), min_size=1, max_size=20), st.integers(1, 24)
    )
    def test_onsets_and_ends_go_to_the_nearest_step(self, times, positions):
        rows = [(onset, duration, 60, part) for part, (onset, duration) in enumerate(sorted(times))]
        piece = Piece(np.array(rows, dtype=np.float64), [Bar(0, 0, "")], "", "", {})
        grid = Grid.of(piece, positions=positions, lowest=0, highest=127)
        assert len(grid.notes) == len(rows)
        for onset, duration, _, part, _ in grid.notes.tolist():
            assert abs(onset - rows[part][0] * positions) <= 0.5
            end = (rows[part][0] + rows[part][1]) * positions
            assert abs(onset + duration - end) <= 0.5 or (duration == 1 and end - onset < 0.5)

    @given(st.integers(1, 400), st.integers(1, 50))
    def test_much_of_a_size(self, end, size):
        """Without a tiny rest at the end: with a line at every step no window is shorter than half."""
        edges = cut(np.arange(end), 0, end, size)
        sizes = np.diff(edges)
        assert len(sizes) == -(-end // size) and sizes.max() - sizes.min() <= 1

    def test_metre_and_position_follow_changes(self, tmp_path):
        meta = [(0, metre(3, 2)), (12, metre(6, 3))]
        content = midi(scale(24), meta=meta)
        piece = read_one(tmp_path / "change.mid", content)
        grid = Grid.of(piece, positions=2, lowest=0, highest=127)
        windows = list(grid.windows(18))
        assert [(window.start, window.metre) for window in windows] == [(0, "3/4"), (18, "3/4"), (30, "6/8")]
        assert grid.notes[:, 4].tolist() == [0, 2, 4] * 8
        later = midi(scale(24), meta=[(0, metre(3, 2)), (6, metre(6, 3))])  # most of a window's steps decide
        grid = Grid.of(read_one(tmp_path / "later.mid", later), positions=2, lowest=0, highest=127)
        assert [window.metre for window in grid.windows(1000)] == ["6/8"]

    def test_position_in_a_pickup_counts_to_the_bar(self, tmp_path):
        grid = Grid.of(read_one(tmp_path / "pickup.krn", KERN), positions=12, lowest=0, highest=127)
        assert grid.notes[:, 4].tolist() == [24, 0, 12, 16, 20, 24, 6, 12, 24]

    def test_without_a_metre_the_position_is_unknown(self, tmp_path):
        grid = Grid.of(read_one(tmp_path / "none.mid", midi(TUNE)), positions=12, lowest=0, highest=127)
        assert set(grid.notes[:, 4]) == {-1}
        assert set(note_tokens(grid.notes)[:, 3]) == {0}

    def test_bars_of_several_metres(self):
        assert [bar.start for bar in regular_bars([(1.0, "3/4", 3.0), (5.0, "1/4", 1.0)], 7.0)] == [
            0,
            1,
            4,
            5,
            6,
        ]

    def test_long_rests_give_no_rows(self, folder, tmp_path):
        write(
            folder / "rests.mid", midi([(onset + start, 1, 60) for start in (40, 4000) for onset in range(8)])
        )
        rows, _, quality = prepared(folder, tmp_path / "out", window_quarters=16)
        kept = [key for key in rows if key.startswith("rests")]
        assert len(kept) == 2
        assert quality["rests.mid"]["windows"] - quality["rests.mid"]["windows_with_few_notes"] == 2
        assert kept[0] == "rests.mid#40"

    def test_pitches_out_of_range_are_counted(self, folder, tmp_path):
        rows, _, quality = prepared(folder, tmp_path / "out", lowest=55, highest=72, min_notes=4)
        assert quality["bach/bwv1.2.mid"]["changed"] == {"out of range": 7}
        assert all(55 <= row["notes"][:, 2].min() and row["notes"][:, 2].max() <= 72 for row in rows.values())


class TestBadInput:
    def test_a_very_short_note_lasts_a_step(self, tmp_path):
        grid = Grid.of(
            read_one(tmp_path / "x.mid", midi([(0.01, 0.01, 60)])), positions=4, lowest=0, highest=127
        )
        assert grid.notes[0, :3].tolist() == [0, 1, 60]
        assert grid.changed == {"moved to the grid": 1}

    def test_two_parts_may_hold_one_pitch(self, tmp_path):
        piece = read_one(tmp_path / "unison.mid", midi([(0, 4, 60)], [(1, 1, 60), (2, 1, 40)]))
        grid = Grid.of(piece, positions=1, lowest=0, highest=127)
        assert sorted(map(tuple, grid.notes[:, :3].tolist())) == [(0, 4, 60), (1, 1, 60), (2, 1, 40)]

    def test_a_note_that_never_ends_is_cut(self, folder, tmp_path):
        write(folder / "drone.mid", midi([*scale(16), (0, 5000, 40)]))
        rows, _, quality = prepared(folder, tmp_path / "out")
        assert quality["drone.mid"]["changed"] == {"too long": 1}
        assert [key for key in rows if key.startswith("drone")] == ["drone.mid#0"]
        notes = rows["drone.mid#0"]["notes"]
        assert notes[notes[:, 2] == 40, 1].tolist() == [64 * 12]
