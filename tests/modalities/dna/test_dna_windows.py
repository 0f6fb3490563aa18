import itertools

import pytest
from dna_files import SMALL, as_fasta, bases, read, texts, write
from hypothesis import given
from hypothesis import strategies as st

import modalities.dna
from modalities.dna import DNA


class TestWindows:
    @given(
        size=st.integers(1, 150),
        length=st.integers(10, 60),
        step=st.integers(1, 90),
        block=st.integers(1, 300),
    )
    def test_they_cover_what_they_can_and_do_not_depend_on_records(
        self, tmp_path_factory, size, length, step, block
    ):
        text = bases(size)
        path = write(tmp_path_factory.mktemp("windows") / "a.fa", as_fasta({"chr1": text}))
        settings = {"length": length, "step": step, "min_length": 1}
        whole = texts(path, **settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(modalities.dna, "BLOCK_BASES", block)
            blocks = texts(path, **settings)
        assert [*whole.values()] == [*blocks.values()]
        places = [
            tuple(map(int, key.partition("#")[2].split("-"))) if "#" in key else (0, size) for key in whole
        ]
        assert [key.partition("#")[2] for key in blocks] == [
            f"{a}-{b}" if "#" in key else "" for key, (a, b) in zip(blocks, places, strict=True)
        ]
        assert all(
            text[start:stop] == found for (start, stop), found in zip(places, whole.values(), strict=True)
        )
        assert all(0 < stop - start <= length and start % step == 0 for start, stop in places)
        assert all(before[1] < after[1] for before, after in itertools.pairwise(places))
        if step <= length:
            assert set().union(*(range(*place) for place in places)) == {*range(size)}

    def test_n_runs_and_short_ends_are_left_out_and_counted(self, tmp_path):
        text = bases(100) + "N" * 170 + bases(35)
        path = write(tmp_path / "a.fa", as_fasta({"chr1": text, "chr2": "n" * 60, "chr3": "ACGT"}))
        rows, reasons, quality = read(path, **SMALL)
        assert [*rows] == ["chr1#0-50", "chr1#50-100", "chr1#250-300"]
        assert quality["chr1"] == {
            "bases": 305,
            "rows": 3,
            "dropped_windows": {
                "more than 50% N (modality.max_missing)": 3,
                "fewer than 10 bases (modality.min_length)": 1,
            },
        }
        assert reasons == {
            "chr2": "more than 50% N (modality.max_missing), or worse, in each of 2 windows",
            "chr3": "fewer than 10 bases (modality.min_length)",
        }

    def test_every_nth_sequence(self, tmp_path):
        path = write(tmp_path / "a.fa", as_fasta({f"s{i}": bases(40, i) for i in range(10)}))
        assert [*texts(path, every=4)] == ["s0", "s4", "s8"]

    @pytest.mark.parametrize(
        "settings",
        [{"length": 0}, {"min_length": 3000}, {"step": -1}, {"step": 0}, {"every": 0}, {"max_missing": 2.0}],
    )
    def test_impossible_settings(self, settings):
        with pytest.raises(ValueError, match="are needed"):
            DNA(**settings)

    def test_lines_that_end_in_cr_alone_are_told(self, tmp_path):
        path = write(tmp_path / "a.fa", ">s one\r" + "\r".join([bases(40, 1)] * 3) + "\r")
        _, reasons, _ = read(path)
        assert reasons == {"a.fa": r"its lines end in CR alone: convert it, for example by tr '\r' '\n'"}

    @pytest.mark.parametrize("stride", [0, -4, 65])
    def test_impossible_strides(self, stride):
        with pytest.raises(ValueError, match=rf"modality.stride={stride} must lie in \[1, 64\]"):
            DNA(stride=stride)
