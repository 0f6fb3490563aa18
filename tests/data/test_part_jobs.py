"""Parts of a preparation, as jobs of an array: each alone, and all of them joined."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbers_adapter import Numbers, read_numbers, write_numbers

from seqssl import Record, Rejected, Rows, UserError, cli
from seqssl.data import writing
from seqssl.data.index import INDEX
from seqssl.data.parts import Part, count_in
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus, Manifest
from seqssl.data.splits import assign_splits


class Sized(Numbers):
    """Numbers whose files say how long they are; each is two rows, the second of which is as it pleases."""

    def records(self, source: Path, split: str) -> Iterator[Record | Rejected]:
        for found in super().records(source, split):
            if isinstance(found, Rejected):
                yield found
            else:
                path = source / found.key
                size = float(path.stat().st_size)
                yield Record(found.key, partial(read_twice, path), found.group, found.label, amount=size)


def read_twice(path: Path) -> Rows:
    row = read_numbers(path)
    return Rows([row, row], {"read": path.name}, [f"{path.stem} is a row"], ["all rows are there twice"])


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SHARD_BYTES", 600)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    write_numbers(folder)
    (folder / "group0" / "broken.num").write_text("1 2 three")
    (folder / "group1" / "unwanted.num").write_text("1")
    (folder / "group2" / "row7.num").write_text("1 nan")
    return folder


def run(source: Path, out: Path, part: str = "", **options: Any) -> Manifest:
    chosen = Part.read(part) if part else None
    return prepare(Sized(), source, out, modality="numbers", num_workers=1, part=chosen, **options)


def run_all(source: Path, out: Path, count: int, **options: Any) -> None:
    numbers = [*range(1, count + 1)]
    random.Random(0).shuffle(numbers)
    for number in numbers:
        run(source, out, f"{number}/{count}", **options)


def rows(out: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(out / shard.name) for shard in Manifest.read(out).shards)


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


@given(st.lists(st.floats(0, 1e9), max_size=40), st.integers(1, 12))
def test_every_record_is_of_one_part_and_no_part_is_too_long(amounts: list[float], count: int) -> None:
    records = [Record(str(number), dict, amount=amount) for number, amount in enumerate(amounts)]
    parts = [Part(number, count).of(records) for number in range(1, count + 1)]
    assert [place for part in parts for place in range(part.first, part.last)] == [*range(len(records))]
    assert len({part.shards for part in parts}) == count and sorted(parts, key=lambda p: p.shards) == parts
    sizes = amounts if all(amounts) else [1.0] * len(amounts)
    for part in parts if amounts else []:
        assert sum(sizes[part.first : part.last]) <= (sum(sizes) / count + max(sizes)) * (1 + 1e-9)


@pytest.mark.parametrize("count", [1, 2, 3, 11, 40])
def test_joined_parts_hold_the_rows_of_a_whole_preparation(source: Path, tmp_path: Path, count: int) -> None:
    whole, out = run(source, tmp_path / "whole"), tmp_path / "out"
    run_all(source, out, count)
    joined = run(source, out)
    assert rows(out).equals(rows(tmp_path / "whole"))
    for name in ("rejected.jsonl", "quality.jsonl"):
        assert (out / name).read_text() == (tmp_path / "whole" / name).read_text()
    same = ("spec", "source", "plan", "splits", "num_rejected", "readings", "notices")
    assert all(getattr(joined, name) == getattr(whole, name) for name in same)
    assert joined.statistics and whole.statistics
    for name, values in joined.statistics.items():
        np.testing.assert_allclose(values, whole.statistics[name], rtol=1e-12)
    found = Corpus(out)
    assert found.keys.tolist() == Corpus(tmp_path / "whole").keys.tolist()
    shards = [shard.name for shard in joined.shards]
    assert shards == sorted(shards)
    others = [".lock", "manifest.json", "quality.jsonl", "rejected.jsonl", INDEX]
    assert names(out) == sorted([*others, *shards])
    assert run(source, out) == joined == run(source, out, f"1/{count}")
    with pytest.raises(UserError, match="another prepared corpus"):
        run(source, out, f"1/{count}", seed=1)


def test_jobs_at_the_same_time_do_not_meet(source: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as jobs:
        list(jobs.map(lambda number: run(source, tmp_path / "out", f"{number}/7"), [*range(1, 8), 3, 3]))
    run(source, tmp_path / "whole")
    run(source, tmp_path / "out")
    assert rows(tmp_path / "out").equals(rows(tmp_path / "whole"))


def test_a_missing_part_is_named(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number in (1, 3, 4, 8):
        run(source, out, f"{number}/9")
    before = names(out)
    with pytest.raises(UserError, match=r"9 parts, of which 5 are missing: 2,5-7,9 \(not done\).* part=2/9,"):
        run(source, out)
    assert names(out) in (before, sorted([*before, ".lock"]))
    for number in (2, 5, 6, 7, 9):
        run(source, out, f"{number}/9")
    (victim,) = out.glob("shard-4of9-00000.parquet")
    victim.write_bytes(victim.read_bytes()[:-1])
    (out / "part-6of9.json").write_text("{")
    with pytest.raises(UserError, match=r"missing: 4,6 \(not done; shard-4of9-00000.parquet is missing or"):
        run(source, out)
    run(source, out, "4/9")
    run(source, out, "6/9")
    run(source, out)


def test_an_interrupted_part_goes_on(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, reads = tmp_path / "out", list[str]()
    run_all(source, out, 2)
    done = {path.name: path.read_bytes() for path in out.glob("*-2of2*")}
    (out / "part-2of2.json").unlink()
    shards = sorted(out.glob("shard-2of2-*"))
    assert len(shards) > 2
    for path in shards[1:]:
        path.unlink()

    def counted(adapter: Any, task: Any) -> Any:
        reads.append(task.columns["key"])
        return read_record(adapter, task)

    read_record = writing._read_record
    monkeypatch.setattr(writing, "_read_record", counted)
    run(source, out, "2/2")
    assert {path.name: path.read_bytes() for path in out.glob("*-2of2*")} == done
    assert 0 < len(reads) < 10, "the first shard's are not read again"
    reads.clear()
    assert run(source, out, "2/2").shards and not reads, "what is done is not done again"


def test_a_part_of_another_state_of_the_source_is_made_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_all(source, out, 3)
    (source / "group0" / "row0.num").write_text("7 7 7 7 7 7 7")
    run(source, out, "2/3")
    with pytest.raises(UserError, match=r"2 are missing: 1,3 \(of another state of the source"):
        run(source, out)
    run_all(source, out, 3)
    run(source, out)
    np.testing.assert_array_equal(Corpus(out).row(0)["values"], np.full(7, 7, np.float32))


def test_two_divisions_and_a_whole_preparation_are_kept_apart(source: Path, tmp_path: Path) -> None:
    out, begun = tmp_path / "out", tmp_path / "begun"
    run(source, out, "1/3")
    before = names(out)
    with pytest.raises(UserError, match="parts of 3 and 4"):
        run(source, out, "1/4")
    assert names(out) == before
    run(source, begun)
    (begun / "manifest.json").unlink()
    (begun / "plan.txt").write_text("of a preparation that was interrupted")
    with pytest.raises(UserError, match="the beginning of a whole preparation"):
        run(source, begun, "1/3")


def test_where_all_that_is_held_out_is_bad_rows_are_those_of_a_whole_preparation(tmp_path: Path) -> None:
    source = tmp_path / "raw"
    write_numbers(source, num_groups=1, num_rows=9)
    records = [record for record in Sized().records(source, "all") if isinstance(record, Record)]
    splits = assign_splits(records, split_by="record", valid_share=0.1, seed=0)
    for record, split in zip(records, splits, strict=True):
        if split == "valid":
            path = source / record.key
            path.write_text("x" * path.stat().st_size)
    whole = run(source, tmp_path / "whole", split_by="record")
    run_all(source, tmp_path / "out", 3, split_by="record")
    assert run(source, tmp_path / "out", split_by="record") == whole and whole.splits["valid"].num_rows
    kept = [name for name in names(tmp_path / "whole") if name != INDEX]
    assert [name for name in names(tmp_path / "out") if name != INDEX] == kept
    assert all(
        (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in kept
    )


def test_a_source_in_which_nothing_is_usable_is_an_error_of_the_whole(tmp_path: Path) -> None:
    source, out = tmp_path / "raw", tmp_path / "out"
    write_numbers(source, num_groups=1, num_rows=3)
    for path in source.rglob("*.num"):
        path.write_text("nan")
    run_all(source, out, 2)
    with pytest.raises(UserError, match=r"No usable rows in .*\n.*3 x not-a-number"):
        run(source, out)


@pytest.mark.parametrize(
    "text", ["0/16", "17/16", "3", "3/", "/3", "a/b", "-1/3", "3/0", "1/2/3", "1.0/2", "٣/٤"]
)
def test_what_is_no_part_is_told(text: str) -> None:
    with pytest.raises(UserError, match=r"part = .*(1/16|parts are 1/)"):
        Part.read(text)


def test_files_of_parts_are_known_by_their_names() -> None:
    part = Part.read("003/16")
    assert (str(part), part.file, part.mark) == ("3/16", "part-03of16.json", "plan-03of16.txt")
    assert count_in([part.lock, "manifest.json", f"{part.shards}00000.parquet"], "out") == 16
    assert count_in(["shard-00000.parquet", "plan.txt", ".lock"], "out") == 0


def test_the_command_says_what_is_done_and_what_is_missing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["prepare", "modality=test_part_jobs:Sized", f"source={source}", f"out={out}", "workers=1"]
    assert cli.main([*command, "part=2/2"]) == 0
    said = capsys.readouterr().out
    assert (
        said.startswith("part 2/2: 18 rows in 3 shards, 1 rejected.")
        and "the same command without part= joins them" in said
    )
    assert cli.main(command) == 2
    assert "of which 1 are missing: 1 (not done)" in capsys.readouterr().err
    assert cli.main([*command, "part=1/2"]) == 0
    assert cli.main(command) == 0
    lines = (out / "rejected.jsonl").read_text().splitlines()
    assert len(lines) == 3 == json.loads((out / "manifest.json").read_text())["num_rejected"]
    assert "prepare.html" in capsys.readouterr().out
