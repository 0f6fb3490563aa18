"""Several devices, positions or sessions of one person in one table."""

import numpy as np
import pandas as pd
import pytest
from wearables_files import assert_true, clock, found, frame, refused, truth, values, write

from modalities.wearables import tables
from seqssl import Record, Rejected


def devices(subject: str, *rates: float, column: str = "Device") -> pd.DataFrame:
    """What devices of several rates record at once, one below the other."""
    parts = [
        frame(clock(40, rate), truth(clock(40, rate), n)).assign(User=subject, Model="m", **{column: f"d{n}"})
        for n, rate in enumerate(rates)
    ]
    return pd.concat(parts, ignore_index=True)


def read(source, **settings) -> dict[str, tuple[str, np.ndarray]]:
    """The group and the values of each recording."""
    records = found(source, **settings)
    assert all(isinstance(record, Record) for record in records), records
    return {record.key: (record.group, values(record.read())) for record in records}


@pytest.mark.parametrize("column", ["Device", "sensor", "position", "session"])
@pytest.mark.parametrize("order", ["apart", "in turns"])
def test_are_recordings_of_one_group(tmp_path, column, order):
    table = pd.concat([devices("a", 50, 100, column=column), devices("b", 50, 100, column=column)])
    if order == "in turns":
        table = table.sort_values(["User", "time"], kind="stable")
    rows = read(write(tmp_path / "x.csv", table))
    assert {key: group for key, (group, _) in rows.items()} == {
        f"x.csv/{who}/d{n}": who for who in "ab" for n in (0, 1)
    }
    for key, (_, samples) in rows.items():
        assert_true(samples, seed=int(key[-1]), atol=2e-2)


def test_only_the_subjects_that_need_it_are_divided(tmp_path):
    alone = frame(clock(80), truth(clock(80))).assign(User="b", Model="m")
    alone["Device"] = np.where(alone["time"] < 40, "d0", "d1")  # one after the other
    table = pd.concat([devices("a", 50, 50), alone], ignore_index=True)
    assert [*read(write(tmp_path / "x.csv", table))] == ["x.csv/a/d0", "x.csv/a/d1", "x.csv/b"]


def test_subjects_without_such_columns_are_not_looked_at_one_by_one(tmp_path, monkeypatch):
    parts = [frame(clock(20), truth(clock(20), n)).assign(subject=n) for n in range(3)]
    monkeypatch.setattr(tables, "_parts_of", None)
    assert [*read(write(tmp_path / "x.csv", pd.concat(parts)))] == [f"x.csv/{n}" for n in range(3)]


def test_two_columns_together(tmp_path):
    parts = [
        frame(clock(20), truth(clock(20), n)).assign(subject=7, trial=n // 2, position=n % 2)
        for n in range(4)
    ]
    rows = read(write(tmp_path / "x.csv", pd.concat(parts)))
    assert [*rows] == [f"x.csv/7/{position},{trial}" for position in (0, 1) for trial in (0, 1)]


def test_of_a_table_without_subjects(tmp_path):
    rows = read(write(tmp_path / "p1.csv", devices("a", 50, 50).drop(columns="User")))
    assert {key: group for key, (group, _) in rows.items()} == {"p1.csv/d0": "p1", "p1.csv/d1": "p1"}


def test_devices_without_times_are_never_joined(tmp_path):
    table = devices("a", 50, 50).drop(columns="time")
    rows = read(write(tmp_path / "x.csv", table), source_rate_hz=50.0)
    assert [*rows] == ["x.csv/a/d0", "x.csv/a/d1"]
    for key, (_, samples) in rows.items():
        assert_true(samples, seed=int(key[-1]))
    positions = table.rename(columns={"Device": "position"})
    assert [*read(write(tmp_path / "x.csv", positions), source_rate_hz=50.0)] == ["x.csv/a"]


def test_columns_that_may_hold_the_times_are_said(tmp_path):
    table = devices("a", 50, 50).assign(Arrival_Time=1, Creation_Time=2).drop(columns="time")
    record, _ = found(write(tmp_path / "x.csv", table))
    with pytest.raises(
        ValueError, match=r"Arrival_Time, Creation_Time: set modality\.time_column=Arrival_Time if"
    ):
        record.read()


def test_states_of_one_recording_are_none(tmp_path):
    places = np.repeat(["hand", "pocket", "hand", "pocket"], 500)
    rows = read(write(tmp_path / "x.csv", frame().assign(position=places, subject=3)))
    assert [*rows] == ["x.csv/3"]
    assert_true(rows["x.csv/3"][1])


def test_rows_without_a_device_are_told(tmp_path):
    table = devices("a", 50, 50)
    table.loc[table.index[-500:], "Device"] = None
    record, *others = found(write(tmp_path / "x.csv", table))
    assert record == Rejected("x.csv/a", "rows without a Device") and len(others) == 2


def test_rows_that_go_back_are_not_to_be_joined(tmp_path):
    table = devices("a", 50, 50, column="unit_no")
    reason = refused(write(tmp_path / "x.csv", table))
    assert "earlier than one before" in reason and "source_rate_hz" not in reason
    assert reason.endswith("sort them, or call the column that tells several devices apart 'device'")
