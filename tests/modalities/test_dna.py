import gzip
import itertools
import json
import struct
import tracemalloc
from collections import Counter
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from Bio import SeqIO
from Bio.bgzf import BgzfWriter
from Bio.Seq import Seq, reverse_complement
from Bio.SeqIO.FastaIO import SimpleFastaParser
from Bio.SeqRecord import SeqRecord
from hypothesis import given
from hypothesis import strategies as st

import modalities.dna
from modalities.dna import DNA, fasta, storage
from modalities.dna.fasta import scan_fasta
from modalities.dna.intervals import interval_of_title
from modalities.dna.shuffling import shuffled
from seqssl import Record, Rejected, Rows, Sample, UserError
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus
from seqssl.testing import adapter_checks

SMALL = {"length": 50, "min_length": 10}


def bases(size: int, seed: int = 0, letters: str = "ACGT") -> str:
    return "".join(np.random.default_rng([seed, size]).choice(list(letters), size))


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_fasta(sequences: dict[str, str], width: int = 60) -> str:
    lines = (
        [f">{name}", *(text[i : i + width] for i in range(0, len(text), width))]
        for name, text in sequences.items()
    )
    return "\n".join(itertools.chain.from_iterable(lines)) + "\n"


def bgzip(path: Path, content: bytes, block: int = 65280) -> Path:
    with BgzfWriter(path, "wb") as file:
        for start in range(0, len(content), block):
            file.write(content[start : start + block])
            file.flush()
    return path


def two_bit(sequences: dict[str, str]) -> bytes:
    """A writer of its own, after UCSC's description of the format."""

    def runs(marked: list[bool]) -> tuple[list[int], list[int]]:
        found = [(value, len([*group])) for value, group in itertools.groupby(marked)]
        starts = itertools.accumulate((size for _, size in found), initial=0)
        pairs = [(start, size) for start, (value, size) in zip(starts, found, strict=False) if value]
        return [start for start, _ in pairs], [size for _, size in pairs]

    def block(text: str) -> bytes:
        parts = [struct.pack("<I", len(text))]
        for marked in ([letter in "nN" for letter in text], [letter.islower() for letter in text]):
            starts, sizes = runs(marked)
            parts.append(struct.pack(f"<I{2 * len(starts)}I", len(starts), *starts, *sizes))
        digits = ["TCAG".index(letter) if letter in "TCAG" else 0 for letter in text.upper()]
        digits += [0] * (-len(digits) % 4)
        packed = bytes(64 * a + 16 * b + 4 * c + d for a, b, c, d in zip(*[iter(digits)] * 4, strict=True))
        return b"".join([*parts, struct.pack("<I", 0), packed])

    blocks = [block(text) for text in sequences.values()]
    offset = 16 + sum(5 + len(name) for name in sequences)
    index = b""
    for name, content in zip(sequences, blocks, strict=True):
        index += bytes([len(name)]) + name.encode() + struct.pack("<I", offset)
        offset += len(content)
    return struct.pack("<4I", 0x1A412743, 0, len(sequences), 0) + index + b"".join(blocks)


def read(source: Path, **settings) -> tuple[dict[str, dict], dict[str, str], dict[str, dict]]:
    """Rows by key, reasons by path and quality by path, in the way of `prepare` but without a folder."""
    rows, reasons, quality = {}, {}, {}
    for record in DNA(**settings).records(source, "all"):
        if isinstance(record, Rejected):
            reasons[record.path] = record.reason
            continue
        shared = {"group": record.group, "label": record.label, "split": record.split}
        try:
            found = record.read()
        except ValueError as error:
            reasons[record.key] = str(error)
            continue
        if isinstance(found, Rows):
            quality |= {record.key: dict(found.quality)} if found.quality else {}
            rows |= {f"{record.key}#{row['part']}".rstrip("#"): {**shared, **row} for row in found.rows}
        else:
            rows[record.key] = {**shared, **found}
    return rows, reasons, quality


def texts(source: Path, **settings) -> dict[str, str]:
    rows, reasons, _ = read(source, **settings)
    assert not reasons
    return {key: row["sequence"] for key, row in rows.items()}


def prepared(source: Path, out: Path, *, options=None, **settings) -> Corpus:
    prepare(DNA(**settings), source, out, modality="dna", num_workers=1, **(options or {}))
    return Corpus(out)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two chromosomes of several windows, one with Ns and lower case, and short sequences with loci."""
    first = bases(230, 1) + "N" * 20 + bases(100, 2).lower()
    write(tmp_path / "raw" / "genome.fa", as_fasta({"chr1": first, "chr2 another": bases(120, 3)}))
    located = {f"g{i} chr{i}:{10 * i + 1}-{10 * i + 40}": bases(40, 10 + i) for i in range(4)}
    write(tmp_path / "raw" / "upstream.fa.gz", gzip.compress(as_fasta(located).encode()))
    return tmp_path / "raw"


@pytest.mark.parametrize(
    "settings", [{}, {**SMALL, "shuffled": True, "soft_masked": "missing"}], ids=["rows", "pairs"]
)
@pytest.mark.parametrize("name, check", adapter_checks())
def test_keeps_the_adapter_contract(name, check, folder, settings):
    check(DNA(**settings), folder)


SEQUENCES = {
    "one": bases(130, 1),
    "two": bases(20, 2) + "nnNN" + bases(20, 3).lower(),
    "three": bases(50, 4),
}


class TestFormats:
    def check(self, source: Path, *, case: bool = True, **settings) -> None:
        found = texts(source, **SMALL, **settings)
        assert set(found) == {"one#0-50", "one#50-100", "one#100-130", "two", "three"}
        for key, text in found.items():
            name, _, part = key.partition("#")
            start, stop = map(int, part.split("-")) if part else (0, None)
            whole = SEQUENCES[name] if case else SEQUENCES[name].upper()
            assert text == whole[start:stop]

    @pytest.mark.parametrize("width", [7, 60, 10_000])
    def test_fasta_plain_gzip_and_bgzip(self, tmp_path, width):
        content = as_fasta(SEQUENCES, width).encode()
        self.check(write(tmp_path / "plain.fasta", content))
        self.check(write(tmp_path / "gzip.fa.gz", gzip.compress(content)))
        self.check(bgzip(tmp_path / "bgzip.fa.gz", content))
        self.check(bgzip(tmp_path / "blocks.fna.bgz", content, block=37))

    @pytest.mark.parametrize("suffix", [".fastq", ".fq.gz"])
    def test_fastq(self, tmp_path, suffix):
        lines = "".join(f"@{name} lane 1\n{text}\n+\n{'@' * len(text)}\n" for name, text in SEQUENCES.items())
        self.check(
            write(tmp_path / f"reads{suffix}", gzip.compress(lines.encode()) if "gz" in suffix else lines)
        )

    def test_genbank(self, tmp_path):
        records = [
            SeqRecord(Seq(text), name, name, annotations={"molecule_type": "DNA"})
            for name, text in SEQUENCES.items()
        ]
        text = StringIO()
        SeqIO.write(records, text, "genbank")
        self.check(write(tmp_path / "genes.gb", text.getvalue()), case=False)
        self.check(write(tmp_path / "genes.gbk.gz", gzip.compress(text.getvalue().encode())), case=False)

    def test_2bit(self, tmp_path):
        self.check(write(tmp_path / "genome.2bit", two_bit(SEQUENCES)))

    @pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
    def test_tables(self, tmp_path, suffix):
        table = pd.DataFrame(
            {
                "ID": [*SEQUENCES],
                "Sequence": [*SEQUENCES.values()],
                "label": ["a", "b", "a"],
                "chrom": ["chr1", "chr1", "chr2"],
                "split": ["train", "validation", "test"],
            }
        )
        path = tmp_path / f"table{suffix}"
        table.to_parquet(path) if suffix == ".parquet" else table.to_csv(
            path, sep="\t" if suffix == ".tsv" else ",", index=False
        )
        self.check(path)
        rows, _, _ = read(path)
        assert [(row["label"], row["group"], row["split"]) for row in rows.values()] == [
            ("a", "chr1", "train"),
            ("b", "chr1", "valid"),
            ("a", "chr2", "test"),
        ]
        assert [record.key for record in DNA().records(path, "valid")] == ["two"]
        if suffix != ".parquet":
            self.check(write(tmp_path / f"zipped{suffix}.gz", gzip.compress(path.read_bytes())))
        settings = {"sequence_column": "Sequence", "label_column": "chrom", "group_column": "label"}
        assert [(row["label"], row["group"]) for row in read(path, **settings)[0].values()] == [
            ("chr1", "a"),
            ("chr1", "b"),
            ("chr2", "a"),
        ]

    def test_class_folders_of_text_files(self, tmp_path):
        """The layout of genomic_benchmarks."""
        for split, kind, number in itertools.product(("train", "test"), ("coding", "intergenomic"), range(2)):
            write(tmp_path / "set" / split / kind / f"{number}.txt", bases(200, number) + "\n")
        write(tmp_path / "set" / "README.txt", "Not a sequence.")
        rows, reasons, _ = read(tmp_path / "set")
        assert not reasons
        assert len(rows) == 8
        row = rows["train/coding/1.txt"]
        assert (row["label"], row["split"], row["sequence"]) == ("coding", "train", bases(200, 1))
        assert {row["split"] for row in rows.values()} == {"train", "test"}
        write(tmp_path / "set" / "valid" / "0.txt", bases(200, 5))
        row = read(tmp_path / "set")[0]["valid/0.txt"]
        assert (row["label"], row["split"]) == ("", "valid")
        alone, _, _ = read(tmp_path / "set" / "train" / "coding" / "1.txt")
        assert alone["1.txt"]["sequence"] == bases(200, 1)

    def test_what_we_write_can_be_read_as_a_source(self, folder, tmp_path):
        corpus = prepared(folder, tmp_path / "out", **SMALL)
        again = prepared(tmp_path / "out" / "shard-00000.parquet", tmp_path / "again", **SMALL)
        columns = ("key", "group", "split", "sequence", "length")
        rows, copies = (
            [[row[name] for name in columns] for row in map(c.row, range(len(c)))] for c in (corpus, again)
        )
        assert rows == copies

    def test_files_of_a_folder_keep_apart_what_has_the_same_name(self, tmp_path):
        for name in ("b.fa", "a.fa"):
            write(tmp_path / name, as_fasta({"chr1": bases(60)}))
        assert [*texts(tmp_path)] == ["a.fa/chr1", "b.fa/chr1"]


class TestFastaIndex:
    @given(data=st.data())
    @pytest.mark.parametrize("compression", ["plain", "gzip", "bgzip"])
    def test_any_stretch_of_any_layout(self, tmp_path_factory, compression, data):
        """Ragged and blank lines, mixed line ends, chunks that end anywhere: as Biopython reads it."""
        ends = st.sampled_from(["\n", "\r\n", "\n\n", " \n"])
        lines = st.lists(st.tuples(st.text("ACGTNacgtn", max_size=12), ends), max_size=6)
        records = data.draw(
            st.lists(st.tuples(st.text("ab> ", max_size=9), ends, lines), min_size=1, max_size=4)
        )
        text = "".join(
            f">{number} {title}{end}" + "".join(itertools.chain.from_iterable(body))
            for number, (title, end, body) in enumerate(records)
        )
        expected = [
            (title, body.replace(" ", "")) for title, body in SimpleFastaParser(StringIO(text, newline=None))
        ]
        folder = tmp_path_factory.mktemp("fasta")
        if compression == "bgzip":
            path = bgzip(folder / "a.gz", text.encode(), block=data.draw(st.integers(1, 40)))
        else:
            path = write(folder / "a", text if compression == "plain" else gzip.compress(text.encode()))
        with pytest.MonkeyPatch.context() as patch:
            for module in (fasta, storage):
                patch.setattr(module, "CHUNK_BYTES", data.draw(st.integers(1, 40)))
            found = [*scan_fasta(path)]
            assert [title for title, _ in found] == [title.strip() for title, _ in expected]
            for (_, place), (_, body) in zip(found, expected, strict=True):
                assert (len(place), place.read()) == (len(body), body.encode())
                start = data.draw(st.integers(0, len(body)))
                stop = data.draw(st.integers(start, len(body)))
                inner = data.draw(st.integers(0, stop - start))
                if start < stop:
                    assert place.narrow(start, stop).read() == body[start:stop].encode()
                    assert (
                        place.narrow(start, stop).narrow(inner, stop - start).read()
                        == body[start + inner : stop].encode()
                    )

    @pytest.mark.parametrize("width", [60, 10**8], ids=["lines of 60", "one line"])
    def test_a_record_of_100_megabases_streams(self, tmp_path, width):
        unit = bases(60 * 4999).encode()  # its period is no multiple of a chunk, a block or a window
        with (tmp_path / "large.fa").open("wb") as file:
            file.write(b">chr1\n")
            body = (
                unit
                if width > len(unit)
                else b"".join(unit[i : i + 60] + b"\n" for i in range(0, len(unit), 60))
            )
            for _ in range(10**8 // len(unit)):
                file.write(body)
        size = 10**8 // len(unit) * len(unit)
        write(tmp_path / "far.bed", f"chr1\t{size - 1000}\t{size}\nchr1\t50000000\t50000400\t.\t.\t-\n")
        tracemalloc.start()
        records = [*DNA(length=5000).records(tmp_path / "large.fa", "all")]
        rows = records[-2].read().rows
        places = texts(tmp_path / "large.fa", intervals=str(tmp_path / "far.bed"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 * 2**20

        def expected(start: int, stop: int) -> str:
            turns = unit[start % len(unit) :] + unit * 2
            return turns[: stop - start].decode()

        assert len(records) == -(-(size // 5000) // (modalities.dna.BLOCK_BASES // 5000))
        for row in rows:
            assert row["sequence"] == expected(*map(int, row["part"].split("-")))
        assert places[f"chr1:{size - 1000}-{size}"] == expected(size - 1000, size)
        assert places["chr1:50000000-50000400(-)"] == reverse_complement(expected(50000000, 50000400))

    def test_a_file_that_changed_since_the_scan_is_told(self, tmp_path):
        path = write(tmp_path / "a.fa", as_fasta({"chr1": bases(500)}))
        (record,) = DNA().records(path, "all")
        write(path, ">chr1\nACGT\n")
        with pytest.raises(ValueError, match=r"a\.fa ends early: it has changed"):
            record.read()


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


class TestTitles:
    def test_one_row_per_interval_grouped_by_chromosome(self, tmp_path):
        """The layout of UCSC's upstream files, of which the demo corpus is one."""
        a, b, c = bases(40, 1), bases(40, 2), bases(25, 3)
        path = write(
            tmp_path / "up.fa",
            f">NM_1_up_40_chr2L_101_f chr2L:101-140\n{a}\n>NM_2_up_40_chr2L_101_f chr2L:101-140\n{a}\n"
            f">NM_3_up_40_chr2L_111_f chr2L:111-150\n{b}\n>NM_4_up_40_chr3R_-15_r chr3R:-15-25\n{c}\n"
            f">NM_5_up_40_chrU_1_f chrU:1-40\n{b}\n",
        )
        rows, reasons, _ = read(path, min_length=10)
        assert [(key, row["group"], row["sequence"]) for key, row in rows.items()] == [
            ("chr2L:100-140", "chr2L", a),
            ("chr2L:110-150", "chr2L", b),
            ("chr3R:0-25", "chr3R", c),
            ("chrU:0-40", "chrU", b),
        ]
        assert reasons == {
            "up.fa": "1 of 5 have the interval of an earlier one, which is kept: "
            "NM_2_up_40_chr2L_101_f has that of NM_1_up_40_chr2L_101_f"
        }

    @pytest.mark.parametrize(
        "title, size, key",
        [
            ("x chr1:101-200", 100, "chr1:100-200"),  # samtools, UCSC: from 1
            ("chr1:100-200", 100, "chr1:100-200"),  # bedtools: from 0
            ("peak::chr1:100-200(-)", 100, "chr1:100-200"),
            ("x chr1:-50-30", 30, "chr1:0-30"),
            ("x chr1:101-200 gene=y", 100, "chr1:100-200"),
            ("x chr1:101-200", 77, None),
            ("1 dna:chromosome chromosome:GRCh38:1:1:1000:1 REF", 1000, None),
            ("NC_000913.3 Escherichia coli", 100, None),
        ],
    )
    def test_how_titles_count_shows_in_the_length(self, title, size, key):
        found = interval_of_title(title, size)
        assert (found.key if found else None) == key

    def test_a_title_that_does_not_fit_still_names_the_chromosome(self, tmp_path):
        path = write(tmp_path / "a.fa", as_fasta({"p1 chr1:101-200": bases(77), "p2": bases(50)}))
        rows, _, _ = read(path)
        assert {key: row["group"] for key, row in rows.items()} == {"p1": "chr1", "p2": "p2"}


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


class TestBadFiles:
    def test_each_gets_its_reason_and_the_rest_is_read(self, tmp_path):
        whole = as_fasta({f"s{i}": bases(5000, i) for i in range(9)}).encode()
        good = write(tmp_path / "good.fa", as_fasta({"s": bases(50)}))
        write(tmp_path / "empty.fa", "")
        write(tmp_path / "blank.fa", "\n\n")
        write(tmp_path / "plain.fa", bases(50))
        write(tmp_path / "titles.fa", ">\nACGT\n")
        write(tmp_path / "cut.fa.gz", gzip.compress(whole)[:-2000])
        write(tmp_path / "flipped.fa.gz", gzip.compress(whole)[:-8] + bytes(8))
        zipped = bgzip(tmp_path / "whole.fa.bgz", whole).read_bytes()
        write(tmp_path / "cut.fa.bgz", zipped[:-2000])
        write(tmp_path / "endless.fa.bgz", zipped[:-28])
        write(tmp_path / "cut.fastq", "@r1\nACGT\n+\nIIII\n@r2\nACGT\n+\nII\n")
        write(tmp_path / "cut.2bit", two_bit({"chr1": bases(5000)})[:30])
        write(tmp_path / "not.2bit", "something else")
        write(tmp_path / "not.gb", "something else\n")
        write(tmp_path / "cut.gb", "LOCUS       C1 50 bp DNA linear UNK\nORIGIN\n        1 acgtacgtac\n")
        write(tmp_path / "header.csv", "sequence,label\n")
        write(tmp_path / "not.parquet", "something else")
        write(tmp_path / "genes.bed", "chr1\t0\t50\n")
        write(tmp_path / "peaks.tsv", "chrom\tstart\tend\nchr1\t0\t50\n")
        rows, reasons, _ = read(tmp_path)
        assert {key for key in rows if "whole" not in key} == {"good.fa/s"}
        assert rows["good.fa/s"]["sequence"] == good.read_text().split()[1]
        expected = {
            "empty.fa": "the file is empty",
            "blank.fa": "there is no sequence in it",
            "plain.fa": "it does not begin with '>', as FASTA does",
            "titles.fa": "a record without a name: nothing follows its '>'",
            "cut.fa.gz": "damaged or cut short, bring it again (Compressed file ended before",
            "flipped.fa.gz": "damaged or cut short, bring it again (CRC check failed",
            "cut.fa.bgz": "the bgzip file is cut short: its end marker is missing",
            "endless.fa.bgz": "the bgzip file is cut short: its end marker is missing",
            "cut.fastq": "Lengths of sequence and quality values differs for r2 (4 and 2).",
            "not.2bit": "Unknown signature",
            "not.gb": "there is no sequence in it",
            "cut.gb": "cut short: Premature end of file in sequence data",
            "header.csv": "there is no sequence in it",
            "not.parquet": "Parquet magic bytes not found",
            "genes.bed": "intervals, but no genome: name this file in modality.intervals",
            "peaks.tsv": f"{tmp_path / 'peaks.tsv'} has no column of sequences (sequence, seq, dna); it has",
        }
        assert {*reasons} - {"cut.2bit/chr1"} == {*expected}
        for name, reason in expected.items():
            assert reasons[name].startswith(reason), name
        assert reasons["cut.2bit/chr1"].startswith(
            "the file is damaged or cut short (unexpected number of bytes"
        )

    def test_repeated_names(self, tmp_path):
        path = write(
            tmp_path / "a.fa", f">x first\n{bases(50, 1)}\n>y\n{bases(50, 2)}\n>x second\n{bases(50, 3)}\n"
        )
        rows, reasons, _ = read(path)
        assert {key: row["sequence"] for key, row in rows.items()} == {"x": bases(50, 1), "y": bases(50, 2)}
        assert reasons == {"x": "the name is that of an earlier sequence in a.fa"}

    def test_windows_line_ends_blank_lines_and_a_byte_order_mark(self, tmp_path):
        text = (
            "\ufeff>x first\r\n\r\nACGTACGTAC GTACGTACGT\r\nacgt\r\n\r\n  \r\nACGTACGTACGT\r\n\r\n>y\r\n"
            + "ACGT\r" * 10
        )
        found = texts(write(tmp_path / "a.fa", text))
        assert found == {"x": "ACGTACGTACGTACGTACGTacgtACGTACGTACGT", "y": "ACGT" * 10}

    def test_records_without_bases(self, tmp_path):
        contig = "LOCUS       C1 50 bp DNA linear UNK\nVERSION     C1.1\nCONTIG      join(A:1..50)\n//\n"
        _, reasons, _ = read(write(tmp_path / "contig.gb", contig))
        assert reasons == {"C1.1": "the sequence is empty"}
        rows, reasons, _ = read(write(tmp_path / "t.csv", f"sequence,label\n{bases(50)},a\n,b\n"))
        assert [*rows] == ["0"]
        assert reasons == {"1": "the sequence is empty"}

    def test_tables_without_the_columns_name_what_is_there(self, tmp_path):
        path = write(tmp_path / "t.csv", "text,kind\nACGT,a\n")
        with pytest.raises(
            UserError,
            match=r"no column of sequences \(sequence, .*\); it has text, kind: set modality.sequence_column",
        ):
            [*DNA().records(path, "all")]
        with pytest.raises(UserError, match=r"no column sort \(modality.label_column\); it has text, kind"):
            [*DNA(sequence_column="text", label_column="sort").records(path, "all")]

    def test_what_cannot_be_entered_anywhere_must_fit_into_memory(self, tmp_path, monkeypatch):
        content = as_fasta({"a": bases(600), "b": bases(600)}).encode()
        monkeypatch.setattr("modalities.dna.files.MAX_BASES_IN_MEMORY", 1000)
        _, reasons, _ = read(write(tmp_path / "a.fa.gz", gzip.compress(content)))
        assert reasons["a.fa.gz"].startswith("more than 1,000 bases to keep in memory")
        assert len(texts(bgzip(tmp_path / "b.fa.gz", content))) == 2

    def test_an_unknown_kind_of_file(self, tmp_path):
        with pytest.raises(UserError, match=r"is no kind of file that holds DNA here: \.fa"):
            [*DNA().records(write(tmp_path / "a.bam", "x"), "all")]
        (tmp_path / "a.bam").rename(tmp_path / "b.bam")
        with pytest.raises(UserError, match="Nothing in"):
            prepared(tmp_path, tmp_path.with_name("out"))


GENOME = {"chr1": bases(300, 1, "ACGTacgtN"), "chr2": bases(200, 2)}


class TestIntervals:
    def source(self, folder: Path, bed: str, kind: str = "fa", name: str = "regions.bed") -> Path:
        content = two_bit(GENOME) if kind == "2bit" else as_fasta(GENOME).encode()
        path = folder / f"genome.{kind}"
        bgzip(path, content, block=100) if kind == "fa.gz" else write(path, content)
        write(folder / name, bed)
        return folder

    @pytest.mark.parametrize("kind", ["fa", "fa.gz", "2bit"])
    def test_bed(self, tmp_path, kind):
        bed = (
            "track name=x\n# a comment\nchr1\t10\t60\tpromoter\t0\t+\r\n\nchr1\t10\t60\tpromoter\t0\t-\n"
            "chr2 0 200 .\nchr2\t150\t170\t.\t.\t.\tmore\n"
        )
        rows, reasons, _ = read(self.source(tmp_path, bed, kind), **SMALL, intervals="regions.bed", rc=False)
        assert not reasons
        assert {key: (row["group"], row["label"]) for key, row in rows.items() if "#" not in key} == {
            "chr1:10-60": ("chr1", "promoter"),
            "chr1:10-60(-)": ("chr1", "promoter"),
            "chr2:150-170": ("chr2", ""),
        }
        assert rows["chr1:10-60"]["sequence"] == GENOME["chr1"][10:60]
        assert rows["chr1:10-60(-)"]["sequence"] == reverse_complement(GENOME["chr1"][10:60])
        assert rows["chr2:0-200#150-200"]["sequence"] == GENOME["chr2"][150:]

    @given(
        start=st.integers(0, 250), size=st.integers(10, 50), reverse=st.booleans(), block=st.integers(1, 40)
    )
    def test_windows_of_an_interval_on_either_strand(self, tmp_path_factory, start, size, reverse, block):
        folder = self.source(
            tmp_path_factory.mktemp("bed"),
            f"chr1\t{start}\t{start + size}\t.\t0\t{'-' if reverse else '+'}\n",
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(modalities.dna, "BLOCK_BASES", block)
            found = texts(folder, length=20, min_length=1, max_missing=1.0, intervals="regions.bed")
        text = GENOME["chr1"][start : start + size]
        assert "".join(found.values()) == (reverse_complement(text) if reverse else text)

    def test_a_table_with_names(self, tmp_path):
        table = "#chrom start end label split strand\nchr1 1 50 enhancer dev -\nchr2 101 150 none train +\n"
        table = table.replace(" ", "\t")
        folder = self.source(tmp_path, table, name="set.tsv")
        rows, reasons, _ = read(folder, intervals="set.tsv", one_based=True)
        assert not reasons
        assert [(key, row["label"], row["split"], row["sequence"]) for key, row in rows.items()] == [
            ("chr1:0-50(-)", "enhancer", "valid", reverse_complement(GENOME["chr1"][:50])),
            ("chr2:100-150", "none", "train", GENOME["chr2"][100:150]),
        ]

    def test_a_fourth_column_of_splits(self, tmp_path):
        folder = self.source(tmp_path, "chr1\t0\t50\ttrain\nchr2\t0\t50\tvalid\nchr2\t50\t90\ttest\n")
        rows, _, _ = read(folder, intervals="regions.bed")
        assert [(row["split"], row["label"]) for row in rows.values()] == [
            ("train", ""),
            ("valid", ""),
            ("test", ""),
        ]

    def test_both_strands_of_an_interval_are_one_row_where_rc_makes_them_one(self, tmp_path):
        bed = "chr1\t0\t50\t.\t0\t-\nchr1\t0\t50\t.\t0\t+\nchr1\t0\t60\t.\t0\t+\n"
        folder = self.source(tmp_path, bed)
        rows, reasons, _ = read(folder, intervals="regions.bed")
        assert [*rows] == ["chr1:0-50(-)", "chr1:0-60"]
        assert reasons == {
            "regions.bed": "1 of 3 have the interval of an earlier one, which is kept: "
            "regions.bed:2 has that of regions.bed:1"
        }
        rows, reasons, _ = read(folder, intervals="regions.bed", rc=False)
        assert [*rows] == ["chr1:0-50(-)", "chr1:0-50", "chr1:0-60"] and not reasons
        assert not hasattr(DNA(rc=False), "rc") and DNA(intervals="regions.bed").rc

    def test_bad_lines_are_named(self, tmp_path):
        bed = (
            "chr1\t0\t50\nchr1\t250\t301\nchr2\t190\t300\nchr9\t0\t50\nchr1\t-1\t50\nchr1\t70\t70\nchr1\t70\t60\n"
            "chr1\tx\t60\nchr1\nchr1\t0\t50\tagain\nchr1\t0\t60\t.\t0\t?\n"
        )
        rows, reasons, _ = read(self.source(tmp_path, bed), intervals="regions.bed")
        assert [*rows] == ["chr1:0-50"]
        assert reasons == {
            "regions.bed:2": "chr1:250-301 ends 1 beyond chr1, which has 300 bases; "
            "if the file counts from 1, set modality.one_based=true",
            "regions.bed:3": "chr2:190-300 ends 100 beyond chr2, which has 200 bases",
            "regions.bed:4": "there is no sequence chr9; there is chr1, chr2",
            "regions.bed:5": "the start is before the sequence's first base (-1)",
            "regions.bed:6": "no bases between 70 and 70: BED counts from 0 and leaves the end out; "
            "for a file that counts from 1 set modality.one_based=true",
            "regions.bed:7": "the end 60 is before the start 70",
            "regions.bed:8": "no interval: it needs a sequence's name, a start and an end",
            "regions.bed:9": "no interval: it needs a sequence's name, a start and an end",
            "regions.bed:11": "the strand is '?', neither + nor -",
            "regions.bed": "1 of 2 have the interval of an earlier one, which is kept: "
            "regions.bed:10 has that of regions.bed:1",
        }

    def test_files_that_are_not_there_or_not_intervals(self, tmp_path):
        folder = self.source(tmp_path, "name start\nx 1\n")
        with pytest.raises(UserError, match=r"modality.intervals: there is no file other.bed, nor is it in"):
            [*DNA(intervals="other.bed").records(folder, "all")]
        with pytest.raises(
            UserError, match=r"is no BED file, and its first line names no column chrom, end: name start"
        ):
            [*DNA(intervals="regions.bed").records(folder, "all")]
        write(folder / "cut.bed.gz", gzip.compress(b"chr1\t0\t50\n" * 99)[:-20])
        with pytest.raises(UserError, match=r"cut.bed.gz is damaged or cut short"):
            [*DNA(intervals="cut.bed.gz").records(folder, "all")]

    def test_an_interval_file_elsewhere_is_part_of_the_settings(self, tmp_path):
        path = write(tmp_path / "a.bed", "chr1\t0\t50\n")
        before = DNA(intervals=str(path)).intervals_digest
        write(path, "chr1\t0\t60\n")
        assert before and before != DNA(intervals=str(path)).intervals_digest


ROW = {"sequence": bases(77, 5, "ACGTN"), "label": "x", "group": "chr1"}


class TestStrands:
    def test_augmentation_gives_either_strand(self):
        letters = np.array([*"ACGTN"])
        found = Counter()
        for seed in range(200):
            sample = DNA().load(ROW, np.random.default_rng(seed))
            assert (sample.observed == (sample.values < 4)).all()
            found["".join(letters[sample.values])] += 1
        assert {*found} == {ROW["sequence"], reverse_complement(ROW["sequence"])}
        assert min(found.values()) > 60
        plain = {DNA(rc=False).load(ROW, np.random.default_rng(seed)).values.tobytes() for seed in range(20)}
        assert plain == {DNA().load(ROW, None).values.tobytes()}

    def test_views(self):
        sample = DNA().load(ROW, None)
        same, other = DNA().views(sample)
        assert same is sample
        assert (other.label, other.group) == ("x", "chr1")
        np.testing.assert_array_equal(DNA().views(other)[1].values, sample.values)
        np.testing.assert_array_equal(DNA().views(other)[1].observed, sample.observed)
        assert DNA().views(Sample(sample.values))[1].observed is None
        assert len(DNA(rc=False).views(sample)) == 1

    @pytest.mark.parametrize("stride", [1, 4])
    @pytest.mark.parametrize("size", [1, 3, 4, 50, 77, 1001])
    def test_embeddings_averaged_over_views_do_not_know_the_strand(self, stride, size):
        adapter = DNA(stride=stride)
        torch.manual_seed(0)
        encoder = adapter.feature_encoder(16).eval()

        def pooled(sample: Sample) -> torch.Tensor:
            values, observed = torch.from_numpy(sample.values)[None], torch.from_numpy(sample.observed)[None]
            return encoder(values, torch.tensor([size]), observed).x[0].mean(dim=0)

        def embedded(sample: Sample) -> torch.Tensor:
            return torch.stack([pooled(view) for view in adapter.views(sample)]).mean(dim=0)

        text = bases(size, 6, "ACGTN")
        this, other = (
            adapter.load({"sequence": letters, "label": "", "group": ""}, None)
            for letters in (text, reverse_complement(text))
        )
        torch.testing.assert_close(embedded(this), embedded(other), atol=1e-5, rtol=0)
        if size > 4:
            assert (pooled(this) - pooled(other)).abs().max() > 1e-3  # alone, they differ


def dinucleotides(text: str) -> Counter:
    return Counter(itertools.pairwise(text))


class TestShuffling:
    @given(text=st.text("ACGTNacgtn", max_size=80), seed=st.integers(0, 2**32))
    def test_counts_borders_gaps_and_case_stay(self, text, seed):
        found = shuffled(text.encode(), np.random.default_rng(seed)).decode()
        assert dinucleotides(found.upper()) == dinucleotides(text.upper())
        for old, new in zip(text.upper().split("N"), found.upper().split("N"), strict=True):
            assert (old[:1], old[-1:], dinucleotides(old)) == (new[:1], new[-1:], dinucleotides(new))
        assert [letter.islower() for letter in text] == [letter.islower() for letter in found]

    @pytest.mark.parametrize(
        "text", ["AACCAAC", "ACACGAT", "GATTACA", "AAAACCCA", "ACGTCATG", "CCACACGC", "TTATTCTA"]
    )
    def test_every_order_is_as_likely(self, text):
        """Against all orders, by brute force."""
        orders = {"".join(order) for order in itertools.permutations(text)}
        kept = {
            order
            for order in orders
            if dinucleotides(order) == dinucleotides(text) and order[0] == text[0] and order[-1] == text[-1]
        }
        rng = np.random.default_rng(0)
        draws = 300 * len(kept)
        found = Counter(shuffled(text.encode(), rng).decode() for _ in range(draws))
        assert {*found} == kept
        expected = draws / len(kept)
        chi_squared = sum((count - expected) ** 2 / expected for count in found.values())
        freedom = len(kept) - 1
        assert chi_squared < freedom + 4 * (2 * max(1, freedom)) ** 0.5

    def test_long_runs_of_one_base_are_no_trap(self):
        """Last exits drawn at random, until they form a tree, would take billions of draws here."""
        text = "A" * 3000 + "C" * 3000 + "G" * 3000 + "T" * 3000
        assert shuffled(text.encode(), np.random.default_rng(0)).decode() == text

    def test_a_pair_of_each_window(self, folder):
        rows, reasons, _ = read(folder, **SMALL, shuffled=True)
        plain = texts(folder, **SMALL) if not reasons else read(folder, **SMALL)[0]
        windows = {
            key.rpartition("/")[0] if "-" in key.partition("#")[2] else key.partition("#")[0] for key in rows
        }
        assert windows == {*plain} and len(rows) == 2 * len(plain)
        assert Counter(row["label"] for row in rows.values()) == {"real": len(plain), "shuffled": len(plain)}
        pair = [rows[f"genome.fa/chr1#50-100/{kind}"]["sequence"] for kind in ("real", "shuffled")]
        assert pair[0] != pair[1] and dinucleotides(pair[0]) == dinucleotides(pair[1])
        assert read(folder, **SMALL, shuffled=True)[0] == rows


class TestPrepared:
    def test_chromosomes_are_held_out(self, folder, tmp_path):
        corpus = prepared(folder, tmp_path / "out", options={"valid_groups": ["chr1"]}, **SMALL)
        splits = dict(zip(corpus.groups.tolist(), corpus.splits.tolist(), strict=True))
        assert splits == {"chr0": "train", "chr1": "valid", "chr2": "train", "chr3": "train"}
        assert {"genome.fa/chr1#0-50", "genome.fa/chr2#100-120", "upstream.fa.gz/chr3:30-70"} < {
            *corpus.keys.tolist()
        }
        sample = DNA(**SMALL).load(corpus.row(4), None)
        assert corpus.row(4)["key"] == "genome.fa/chr1#200-250"
        assert sample.observed.tolist() == [True] * 30 + [False] * 20

    def test_what_was_changed_and_left_out_is_written_down(self, folder, tmp_path):
        write(folder / "odd.fa", f">odd\n{'ACGU' * 20}\n>protein\nMKLVINGKTLKGEITVEGAVMKLVINGK\n")
        prepared(folder, tmp_path / "out", **SMALL)
        quality = [json.loads(line) for line in (tmp_path / "out" / "quality.jsonl").read_text().splitlines()]
        assert quality == [{"path": "odd.fa/odd", "bases": 80, "rows": 2, "u_read_as_t": 20}]
        reasons = [
            json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
        ]
        assert [line["path"] for line in reasons] == ["odd.fa/protein"]
        assert "is this a protein?" in reasons[0]["reason"]

    def test_settings_of_loading_share_one_prepared_folder(self, folder, tmp_path):
        options = {"modality": "dna", "num_workers": 1}
        manifest = prepare(DNA(), folder, tmp_path / "out", **options)
        assert prepare(DNA(rc=False, stride=1), folder, tmp_path / "out", **options) == manifest
        for settings in ({"length": 100}, {"soft_masked": "missing"}, {"shuffled": True}, {"every": 2}):
            with pytest.raises(UserError, match="another prepared corpus"):
                prepare(DNA(**settings), folder, tmp_path / "out", **options)

    def test_records_do_not_hold_what_they_need_not(self, folder):
        """Records of a plain file are places: small, whatever they stand for."""
        import pickle

        path = write(folder / "long.fa", as_fasta({"chr9": "ACGT" * 750_000}))
        records = [record for record in DNA().records(path, "all") if isinstance(record, Record)]
        assert len(records) == 12
        assert all(len(pickle.dumps(record)) < 2000 for record in records)
