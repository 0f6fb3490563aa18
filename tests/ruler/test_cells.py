"""The files of finished cells, and the folder that they lie in."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from seqssl.config.schema import DataConfig
from seqssl.data.windows import windows_of
from seqssl.errors import UserError
from seqssl.finetuning.scoring import CLASSES, Scored, confusion, sums_of_errors
from seqssl.ruler.cells import Result, named, read, save
from seqssl.ruler.folder import changes, check_folder, check_same
from seqssl.ruler.folds import Fold


def classes(*, with_tables: bool = False) -> list[Scored]:
    rows = []
    for wanted, said in ((0, 0), (1, 0), (2, 2)):
        table = confusion(np.array([wanted]), np.array([said]), 3) if with_tables else None
        rows.append(Scored(f"row{wanted}", "g", wanted, said, table, np.eye(3, dtype=np.float32)[said]))
    return rows


def test_classes_are_kept_without_tables(tmp_path: Path) -> None:
    save(Result(classes(), 2.0, {"method": "x"}), tmp_path / "cell.npz")
    with np.load(tmp_path / "cell.npz") as table:
        assert "sums" not in table
    found = read(tmp_path / "cell.npz")
    assert (found.seconds, found.details) == (2.0, {"method": "x"})
    assert [(row.key, row.wanted, row.said, row.sums) for row in found.rows] == [
        ("row0", 0, 0, None), ("row1", 1, 0, None), ("row2", 2, 2, None)
    ]  # fmt: skip


def test_cells_of_older_versions_are_read_as_new_ones(tmp_path: Path) -> None:
    save(Result(classes(with_tables=True), 2.0), tmp_path / "old.npz")
    save(Result(classes(), 2.0), tmp_path / "new.npz")
    old, new = (read(tmp_path / name).rows for name in ("old.npz", "new.npz"))
    assert all(row.sums is None for row in old)
    for metric in CLASSES:
        assert metric([*old, *new]) == metric(old) == metric(new) == metric(classes(with_tables=True))


def test_sums_of_other_tasks_are_kept(tmp_path: Path) -> None:
    row = Scored("a", "g", 1.0, 3.0, sums_of_errors(np.array([1.0]), np.array([3.0])))
    save(Result([row], 1.0), tmp_path / "cell.npz")
    (found,) = read(tmp_path / "cell.npz").rows
    assert found.sums is not None and found.sums.tolist() == [4.0, 2.0, 1.0]
    np.savez(tmp_path / "bad.npz", about="{}", keys=["a"], groups=["g"])
    with pytest.raises(UserError, match="is damaged"):
        read(tmp_path / "bad.npz")


def test_groups_are_looked_up_once() -> None:
    class Counted:
        reads = 0

        @property
        def groups(self) -> np.ndarray:
            self.reads += 1
            return np.array(["b", "", "a"], dtype=object)

    corpus: Any = Counted()
    numbers = (0, 1, -1, 0)
    rows = [Scored(str(n), str(number), 0, 0, None) for n, number in enumerate(numbers)]
    assert [row.group for row in named(rows, corpus)] == ["a", "b", "", "a"]
    assert corpus.reads == 1


def test_a_folder_of_something_else_is_no_place_for_an_evaluation(tmp_path: Path) -> None:
    check_folder(tmp_path / "new")
    (tmp_path / ".lock").touch()
    check_folder(tmp_path)
    check_same(tmp_path, "x")
    check_folder(tmp_path)
    with pytest.raises(UserError, match="with other settings, data or weights"):
        check_same(tmp_path, "y")
    (tmp_path / "identity.json").rename(tmp_path / "report.html")
    with pytest.raises(UserError, match="is not empty and holds no evaluation"):
        check_folder(tmp_path)


def test_cells_that_were_made_otherwise_do_not_stand_beside_new_ones() -> None:
    def found(corpus: Any, fold: Fold, **data: Any) -> list[str]:
        config, adapter = SimpleNamespace(data=DataConfig(**data)), SimpleNamespace(spec=None)
        bench: Any = SimpleNamespace(config=config, adapter=adapter, corpus=corpus)
        return changes(bench, [fold])

    rows: Any = SimpleNamespace(
        manifest=None, folder=None, keys=np.array(["x", "y"], object), groups=np.array(["a", "b"], object),
        labels=np.array(["", ""], object), splits=np.array(["train", "train"], object),
        lengths=np.array([30, 40]),
    )  # fmt: skip
    fold = Fold(0, np.array([0]), np.array([1]))
    assert found(rows, fold) == found(rows, fold, max_frames=40) == []
    assert found(rows, fold, max_frames=39) == ["rows are tested whole"]
    windows = windows_of(rows, 20, 10)  # two of the first row, three of the second
    assert found(windows, Fold(0, np.array([0, 2]), np.array([1]))) == []
    assert len(found(windows, Fold(0, np.array([0, 1]), np.array([2])))) == 1
