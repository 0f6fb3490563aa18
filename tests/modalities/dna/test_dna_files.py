import gzip
import itertools
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from dna_files import SMALL, as_fasta, bases, bgzip, prepared, read, texts, two_bit, write

from modalities.dna import DNA
from modalities.dna import texts as dna_texts
from seqssl import UserError

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

    def test_words_for_splits_in_any_case(self, tmp_path):
        words = ["Train", "TEST", "Val", "eval", "fold3"]
        lines = [f"{bases(50, number)},{word}\n" for number, word in enumerate(words)]
        rows, _, _ = read(write(tmp_path / "t.csv", f"sequence,split\n{''.join(lines)}"))
        assert [row["split"] for row in rows.values()] == ["train", "test", "valid", "test", "fold3"]
        for place in ("Train/0.txt", "TEST/coding/0.txt", "deep/Dev/0.txt"):
            write(tmp_path / "set" / place, bases(50))
        rows, _, _ = read(tmp_path / "set")
        assert {key: (row["split"], row["label"]) for key, row in rows.items()} == {
            "Train/0.txt": ("train", ""),
            "TEST/coding/0.txt": ("test", "coding"),
            "deep/Dev/0.txt": ("valid", ""),
        }

    def test_names_of_files_are_splits(self, tmp_path):
        """The layouts of GUE and of the Hugging Face hub; a text file is a sequence, whatever its name."""
        table = f"sequence,label\n{bases(50)},1\n"
        for name in ("H3/train.csv", "H3/dev.csv", "H3/test.csv", "H3/test_genes.csv"):
            write(tmp_path / name, table)
        write(tmp_path / "train-00000-of-00001.fa.gz", gzip.compress(as_fasta({"s": bases(50)}).encode()))
        write(tmp_path / "coding" / "test.txt", bases(50))
        assert {record.key: record.split for record in DNA().records(tmp_path, "all")} == {
            "H3/train.csv/0": "train",
            "H3/dev.csv/0": "valid",
            "H3/test.csv/0": "test",
            "H3/test_genes.csv/0": "",
            "train-00000-of-00001.fa.gz/s": "train",
            "coding/test.txt": "",
        }

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
            "cut.fastq": "it cannot be read: damaged",
            "not.2bit": "it cannot be read: damaged",
            "not.gb": "there is no sequence in it",
            "cut.gb": "cut short: Premature end of file in sequence data",
            "header.csv": "there is no sequence in it",
            "not.parquet": "it cannot be read: damaged",
            "genes.bed": "intervals, but no genome: name this file in modality.intervals",
            "peaks.tsv": f"{tmp_path}",
        }
        assert {*reasons} - {"cut.2bit/chr1"} == {*expected}
        for name, reason in expected.items():
            assert reasons[name].startswith(reason), name
        assert reasons["cut.2bit/chr1"].startswith(
            "the file is damaged or cut short (unexpected number of bytes"
        )

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

    def test_texts_are_looked_into_once_and_few_for_a_suggestion(self, tmp_path, monkeypatch):
        for number in range(40):
            write(tmp_path / "ab"[number % 2] / f"{number}.txt", bases(60, number))
        looked, head_of = [], dna_texts.head_of
        monkeypatch.setattr(
            dna_texts, "head_of", lambda path, size: looked.append(path) or head_of(path, size)
        )
        monkeypatch.setattr("modalities.dna.MOST", 5)
        monkeypatch.setattr(dna_texts, "_kind", dna_texts._kind.__wrapped__)
        suggestion = DNA.suggest(tmp_path)
        assert suggestion.words == "nucleotide sequences in 40 files (.txt)" and not suggestion.problem
        assert len(looked) <= 20
        looked.clear()
        assert len([*DNA().records(tmp_path, "all")]) == len(looked) == 40

    def test_an_unknown_kind_of_file(self, tmp_path):
        with pytest.raises(UserError, match=r"is no kind of file that holds DNA here: \.fa"):
            [*DNA().records(write(tmp_path / "a.bam", "x"), "all")]
        (tmp_path / "a.bam").rename(tmp_path / "b.bam")
        with pytest.raises(UserError, match="Nothing in"):
            prepared(tmp_path, tmp_path.with_name("out"))
