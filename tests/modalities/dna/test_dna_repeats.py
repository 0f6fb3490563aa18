"""Sequences with one name: all but copies are kept, and those of a name are one group."""

import json
from pathlib import Path

import pytest
from Bio.Seq import reverse_complement
from dna_files import bases, prepared, read, write

from modalities.dna import DNA, repeats


def fastq(names: list[str]) -> str:
    return "".join(f"@{name}\n{bases(60, n)}\n+\n{'I' * 60}\n" for n, name in enumerate(names))


def groups(path: Path, **settings) -> list[tuple[str, str]]:
    rows, reasons, _ = read(path, **settings)
    assert not reasons
    return [(key, row["group"]) for key, row in rows.items()]


def notices(path: Path, **settings) -> list[str]:
    read_all = [record.read() for record in DNA(**settings).records(path, "all")]
    return [sentence for rows in read_all for sentence in getattr(rows, "notices", ())]


@pytest.mark.parametrize(
    "mates, shared",
    [
        (("M:1:{} 1:N:0:AT", "M:1:{} 2:N:0:AT"), "M:1:{}"),  # interleaved, as Illumina writes them
        (("SRR1.{} 0 length=60", "SRR1.{} 0 length=60"), "SRR1.{}"),  # fastq-dump without --split-3
    ],
)
def test_mates_of_a_pair_are_both_kept_in_one_group(tmp_path, mates, shared):
    names = [mate.format(pair) for pair in range(5) for mate in mates]
    path = write(tmp_path / "reads.fastq", fastq(names))
    rows, reasons, _ = read(path)
    assert not reasons
    assert [row["sequence"] for row in rows.values()] == [bases(60, n) for n in range(10)]
    fragments = [shared.format(pair) for pair in range(5)]
    expected = [(key, name) for name in fragments for key in (name, f"{name}#2")]
    assert [(key, row["group"]) for key, row in rows.items()] == expected
    assert notices(path) == [
        "5 of 10 sequences have the name or interval of an earlier one but are no copies of it: they are "
        f"kept, with a number behind the name ({fragments[0]}#2)"
    ]


def test_mates_whose_names_end_in_a_number_are_one_group(tmp_path):
    path = write(tmp_path / "reads.fastq", fastq(["r1/1", "r1/2", "r2/1", "r2/2"]))
    assert groups(path) == [("r1/1", "r1"), ("r1/2", "r1"), ("r2/1", "r2"), ("r2/2", "r2")]
    assert not notices(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_rows_of_a_table_that_share_an_id_are_all_kept_in_one_group(tmp_path, name):
    mark = "\t" if name.endswith("tsv") else ","
    lines = [mark.join([f"gene{n // 4}", bases(80, n), str(n % 2)]) for n in range(20)]
    path = write(tmp_path / "in" / name, "\n".join([mark.join(["id", "sequence", "label"]), *lines]) + "\n")
    corpus = prepared(path, tmp_path / "out")
    rows = [corpus.row(number) for number in range(len(corpus))]
    assert {row["sequence"] for row in rows} == {bases(80, n) for n in range(20)}
    assert [row["label"] for row in rows].count("1") == 10
    held_out = {split: {row["group"] for row in rows if row["split"] == split} for split in corpus.splits}
    assert {*held_out} == {"train", "valid"} and not held_out["train"] & held_out["valid"]
    assert set.union(*held_out.values()) == {f"gene{number}" for number in range(5)}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [said for said in manifest["notices"] if said.startswith("15 of 20 sequences have the name")]


def test_an_id_that_is_a_class_loses_nothing(tmp_path):
    lines = [f"{n % 2},{bases(80, n)},gene{n}\n" for n in range(20)]
    rows = groups(write(tmp_path / "a.csv", "ID,Sequence,Label\n" + "".join(lines)))
    assert len(rows) == 20 and {group for _, group in rows} == {"0", "1"}


def test_only_exact_copies_are_left_out(tmp_path):
    a, b = bases(50, 1), bases(50, 2)
    path = write(tmp_path / "a.fa", f">x first\n{a}\n>x other\n{b}\n>y\n{a}\n>x same\n{b.lower()}\n>x\n{a}\n")
    rows, reasons, _ = read(path)
    assert {key: row["sequence"] for key, row in rows.items()} == {"x": a, "x#2": b, "y": a}
    assert reasons == {"x": "a copy of an earlier sequence in a.fa"}
    path = write(tmp_path / "t.csv", f"id,sequence,label\nx,{a},0\nx,{a},1\nx,{a},0\n")
    rows, reasons, _ = read(path)
    assert {key: row["label"] for key, row in rows.items()} == {"x": "0", "x#2": "1"}
    assert reasons == {"x": "a copy of an earlier sequence in t.csv"}


def test_long_sequences_are_compared_to_their_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(repeats, "PIECE_BASES", 7)
    same, other = bases(50, 1), bases(49, 1) + "N"
    path = write(
        tmp_path / "a.fa", f">x\n{same}\n>x\n{same[:30]}\n{same[30:]}\n>x\n{other}\n>x\n{same[:49]}\n"
    )
    rows, reasons, _ = read(path)
    assert [*rows] == ["x", "x#2", "x#3"] and [*reasons] == ["x"]


def test_a_numbered_name_that_is_there_already(tmp_path):
    names = ["x", "x", "x#2", "x", "y#2", "y", "y"]
    path = write(tmp_path / "a.fa", "".join(f">{name}\n{bases(50, n)}\n" for n, name in enumerate(names)))
    assert groups(path) == [
        ("x", "x"),
        ("x#2", "x"),
        ("x#2#2", "x#2"),
        ("x#3", "x"),
        ("y#2", "y#2"),
        ("y", "y"),
        ("y#3", "y"),
    ]


def test_variants_of_an_interval_are_kept_and_its_strands_are_one(tmp_path):
    reference, variant = bases(40, 1), bases(40, 2)
    lines = [(reference, 0), (variant, 1), (reverse_complement(reference), 0)]
    table = "id,sequence,label\n" + "".join(f"chr1:101-140,{text},{label}\n" for text, label in lines)
    rows, reasons, _ = read(write(tmp_path / "a.csv", table))
    assert {key: (row["label"], row["group"]) for key, row in rows.items()} == {
        "chr1:100-140": ("0", "chr1"),
        "chr1:100-140#2": ("1", "chr1"),
    }
    assert reasons["a.csv"].startswith("1 of 3 have the interval of an earlier one, which is kept")


def test_the_notice_is_said_once_and_with_a_row(tmp_path):
    path = write(tmp_path / "a.fa", f">x\n{bases(9)}\n>x\n{bases(8)}\n>y\n{bases(400)}\n>z\n{bases(60)}\n")
    rows, _, _ = read(path, length=100)
    assert [*rows] == ["y#0-100", "y#100-200", "y#200-300", "y#300-400", "z"]
    kept = [record for record in DNA(length=100).records(path, "all") if record.key in "yz"]
    assert [len(getattr(record.read(), "notices", ())) for record in kept] == [1, 0]
    assert [key for key, _ in groups(path, every=2, min_length=5)] == ["x", "y"]
