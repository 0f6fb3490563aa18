import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from music_files import prepared

from modalities.music import Music
from modalities.music.views import note_tokens, piano_roll
from seqssl.testing import feature_encoder_checks


@pytest.mark.parametrize("name, check", feature_encoder_checks())
def test_the_roll_encoder_keeps_its_contract(name, check):
    torch.manual_seed(0)
    adapter = Music(positions_per_quarter=4, lowest=60, highest=71, frames_per_quarter=2)
    check(adapter.feature_encoder(16), adapter.spec)


def window_notes(length: int = 24) -> st.SearchStrategy[np.ndarray]:
    note = st.tuples(
        st.integers(-8, length - 1),
        st.integers(9, 40),
        st.integers(60, 66),
        st.integers(0, 3),
        st.integers(-1, 20),
    )
    return st.lists(note, min_size=1, max_size=20).map(lambda notes: np.array(sorted(notes), dtype=np.int32))


class TestViews:
    @given(window_notes())
    def test_roll_agrees_with_a_slow_one(self, notes):
        roll, observed = piano_roll(notes, 24, lowest=58, highest=70)
        wanted = np.zeros((24, 2, 13), dtype=np.float32)
        for onset, duration, pitch, *_ in notes.tolist():
            if onset >= 0:
                wanted[onset, 0, pitch - 58] = 1
            for step in range(max(0, onset), min(24, onset + duration)):
                wanted[step, 1, pitch - 58] = 1
        np.testing.assert_array_equal(roll.reshape(24, 2, 13), wanted)
        np.testing.assert_array_equal(observed.all(axis=1), wanted[:, 1].any(axis=1))
        np.testing.assert_array_equal(observed.any(axis=1), observed.all(axis=1))

    @given(window_notes())
    def test_tokens_agree_with_slow_ones(self, notes):
        wanted, before = [], 0
        for onset, duration, pitch, part, position in notes.tolist():
            if onset >= 0:
                wanted.append([pitch + 1, duration + 1, onset - before + 1, position + 1, part + 1])
                before = onset
        assert note_tokens(notes).tolist() == wanted

    def test_tokens_are_clipped_to_the_vocabulary(self):
        assert note_tokens(np.array([[5000, 900, 127, 300, 400]])).tolist() == [[128, 128, 128, 128, 128]]

    @given(window_notes(), st.integers(0, 1000))
    def test_transposition_shifts_the_roll(self, notes, seed):
        adapter = Music(positions_per_quarter=1, lowest=58, highest=70)
        row = {"notes": notes, "length": 24, "label": "", "group": ""}
        plain = adapter.load(row, None).values.reshape(24, 2, 13)
        moved = adapter.load(row, np.random.default_rng(seed)).values.reshape(24, 2, 13)
        shifts = [shift for shift in range(-5, 7) if np.array_equal(np.roll(plain, shift, axis=2), moved)]
        assert shifts
        assert moved.sum() == plain.sum()  # no note was lost at the edge

    def test_every_shift_comes_and_none_in_evaluation(self):
        row = {"notes": np.array([[0, 1, 64, 0, 0]]), "length": 1, "label": "", "group": ""}
        adapter, still = Music(view="notes"), Music(view="notes", transpose=False)
        rng = np.random.default_rng(0)
        shifts = {int(adapter.load(row, rng).values[0, 0]) - 65 for _ in range(300)}
        assert shifts == set(range(-5, 7))
        assert int(adapter.load(row, None).values[0, 0]) == int(still.load(row, rng).values[0, 0]) == 65

    @pytest.mark.parametrize("frames_per_quarter", [1, 2, 4])
    def test_a_frame_is_a_beat_or_a_fraction_of_it(self, frames_per_quarter):
        torch.manual_seed(0)
        adapter = Music(
            positions_per_quarter=12, lowest=60, highest=62, frames_per_quarter=frames_per_quarter
        )
        encoder = adapter.feature_encoder(8).eval()
        inputs = torch.rand(1, 12 * 6, 6)
        changed = inputs.clone()
        changed[:, 24:36] += 1.0  # the third quarter
        lengths = torch.tensor([72])
        difference = (encoder(inputs, lengths).x - encoder(changed, lengths).x).abs().sum(-1)[0]
        frames = torch.arange(6 * frames_per_quarter) // frames_per_quarter
        assert torch.equal(difference > 0, frames == 2)

    def test_the_whole_way_from_a_file_to_a_roll(self, folder, tmp_path):
        rows, _, _ = prepared(
            folder, tmp_path / "out", window_quarters=4, positions_per_quarter=12, min_notes=3
        )
        adapter = Music(window_quarters=4, lowest=21, highest=108)
        parts = [row for key, row in rows.items() if key.startswith("bach/bwv1.2.mid#")]
        assert [row["key"].split("#")[1] for row in parts] == ["0", "4", "8", "12", "16"]
        names = adapter.spec.channel_names
        assert names is not None and len(names) == 176
        sample = adapter.load(parts[1], None)
        assert sample.values.shape == (48, 176) and sample.label == "bach" and sample.group == "bach/bwv1"
        begins = {(step, names[channel]) for step, channel in np.argwhere(sample.values[:, :88]).tolist()}
        assert begins == {
            (0, "onset E4"),
            (12, "onset F4"),
            (24, "onset F#4"),
            (36, "onset G4"),
            (0, "onset D3"),
            (24, "onset D#3"),
        }
        assert sample.values[:, 88:].sum() == 2 * 48
        picture = adapter.feature_encoder(8).picture(
            torch.from_numpy(sample.values)[None], torch.tensor([48])
        )
        assert picture.shape == (1, 48, 88)
        low, high = (names.index(f"onset {pitch}") for pitch in ("D3", "G4"))
        assert picture[0, 0, low] == 1 and picture[0, 1, low] == pytest.approx(0.6)
        assert picture[0, 36, high] == 1 and picture[0, 35, high] == 0
