import numpy as np
import pytest
from dna_files import as_fasta, bases, read, texts, write

from modalities.dna import DNA


class TestLetters:
    def test_iupac_codes_and_u_are_read_as_others_and_counted(self, tmp_path):
        path = write(
            tmp_path / "a.fa",
            f">rna\n{'ACGU' * 9}u\n>codes\n{'ACGT' * 9}RYSWKMBDHVryrN\n>clean\n{'ACGTn' * 9}\n",
        )
        rows, reasons, quality = read(path)
        assert not reasons
        assert rows["rna"]["sequence"] == "ACGT" * 9 + "t"
        assert rows["codes"]["sequence"] == "ACGT" * 9 + "N" * 10 + "nnnN"
        codes = {"R": 3, "Y": 2, **dict.fromkeys("SWKMBDHV", 1)}
        assert quality == {
            "rna": {"bases": 37, "rows": 1, "u_read_as_t": 10},
            "codes": {"bases": 50, "rows": 1, "ambiguous_read_as_n": codes},
        }

    @pytest.mark.parametrize(
        "text, reason",
        [
            (
                "MKLVINGKTLKGEITVEGAV" * 3,
                "36 of 60 letters are no nucleotide codes: E I L; is this a protein?",
            ),
            ("ACGT" * 20 + "--A", "2 of 83 letters are no nucleotide codes: -"),
            ("ACGT" * 20 + "12x", "3 of 83 letters are no nucleotide codes: 1 2 x"),
            ("ACGT" * 20 + "\0é", r"3 of 83 letters are no nucleotide codes: '\x00' '©' 'Ã'"),
            ("", "the sequence is empty"),
        ],
    )
    def test_garbage_is_refused_and_named(self, tmp_path, text, reason):
        path = write(tmp_path / "a.fa", f">good\n{bases(50)}\n>bad\n{text}\n")
        rows, reasons, _ = read(path)
        assert [*rows] == ["good"]
        assert {key: value for key, value in reasons.items() if "MKL" not in text} in ({"bad": reason}, {})
        assert reasons["bad"].split(":")[-1] == reason.split(":")[-1]

    def test_ids_missing_values_and_case(self):
        row = {"sequence": "ACGTNacgtn", "label": "x", "group": "chr1"}
        sample = DNA().load(row, None)
        assert sample.values.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
        assert sample.observed.tolist() == [True] * 4 + [False] + [True] * 4 + [False]
        assert (sample.values.dtype, sample.label, sample.group) == (np.int64, "x", "chr1")
        hidden = DNA(soft_masked="missing").load(row, None)
        assert hidden.values.tolist() == [0, 1, 2, 3] + [4] * 6
        assert hidden.observed.tolist() == [True] * 4 + [False] * 6

    def test_soft_masked_bases_can_count_as_missing(self, tmp_path):
        path = write(
            tmp_path / "a.fa", as_fasta({"mixed": bases(30) + bases(20).lower(), "repeat": bases(50).lower()})
        )
        assert set(texts(path)) == {"mixed", "repeat"}
        rows, reasons, _ = read(path, soft_masked="missing")
        assert [*rows] == ["mixed"]
        assert rows["mixed"]["sequence"] == bases(30) + bases(20).lower()
        assert reasons == {"repeat": "more than 50% N or lower case (modality.max_missing)"}
