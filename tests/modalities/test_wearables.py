import collections
import gzip
import inspect
import io
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalities.wearables import Wearables, pickles, signals
from modalities.wearables.recordings import text
from seqssl import Record, Rejected, Rows, UserError
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus
from seqssl.testing import adapter_checks

G = 9.80665
GRAVITY = np.array([0.6, -0.2, 0.75])
START = "2014-05-07T13:29:50"


def truth(times, seed: int = 0) -> np.ndarray:
    """Acceleration in g of an arm in motion: gravity, and movement slower than 5 Hz."""
    rng = np.random.default_rng(seed)
    times = np.asarray(times, dtype=float)[:, None]
    hz, phase = rng.uniform(0.5, 4, (4, 1, 3)), rng.uniform(0, 2 * np.pi, (4, 1, 3))
    return GRAVITY + 0.1 * np.sin(2 * np.pi * hz * times + phase).sum(axis=0)


def turning(times) -> np.ndarray:
    """Rotation in rad/s of the same arm."""
    return 3 * (truth(times, seed=9) - GRAVITY)


def clock(seconds: float = 40.0, rate_hz: float = 50.0) -> np.ndarray:
    return np.arange(round(seconds * rate_hz)) / rate_hz


def frame(times=None, values=None, gyroscope: bool = False) -> pd.DataFrame:
    times = clock() if times is None else times
    values = truth(times) if values is None else values
    columns = {"time": times, "x": values[:, 0], "y": values[:, 1], "z": values[:, 2]}
    if gyroscope:
        columns |= {f"gyro_{axis}": column for axis, column in zip("xyz", turning(times).T, strict=True)}
    return pd.DataFrame(columns)


def write(path: Path, table: pd.DataFrame | None = None, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (frame() if table is None else table).to_csv(path, index=False, **options)
    return path


def beside(path: Path) -> Path:
    return path.with_name(f"{path.name}-prepared")


def found(path: Path, **settings) -> list[Record | Rejected]:
    return [*Wearables(**settings).records(path, "all")]


def read(path: Path, **settings) -> Rows:
    """The one recording of a file."""
    (record,) = found(path, **settings)
    assert isinstance(record, Record), record
    return record.read()


def refused(path: Path, **settings) -> str:
    """Why the one recording of a file cannot be used."""
    (record,) = found(path, **settings)
    if isinstance(record, Rejected):
        return record.reason
    with pytest.raises(ValueError) as caught:
        record.read()
    return str(caught.value)


def values(rows: Rows) -> np.ndarray:
    """The windows end to end."""
    return np.concatenate([row["values"] for row in rows.rows])


def steps(count: int, rate_hz: float = 30.0) -> np.ndarray:
    return np.arange(count) / rate_hz


def assert_true(found: np.ndarray, seed: int = 0, columns: int = 3, atol: float = 2e-3) -> None:
    """Windows end to end are the truth from time 0 on."""
    assert found.shape[1] == columns
    np.testing.assert_allclose(found[:, :3], truth(steps(len(found)), seed), atol=atol)


def prepared(source: Path, out: Path, **settings) -> tuple[dict[str, dict], dict[str, str], dict[str, dict]]:
    """Rows by key, reasons by path, and reports by path."""
    prepare(Wearables(**settings), source, out, modality="wearables", num_workers=1)
    corpus = Corpus(out)
    rows = {row["key"]: row for row in map(corpus.row, range(len(corpus)))}
    rejected, quality = (
        [json.loads(line) for line in (out / name).read_text().splitlines()] if (out / name).exists() else []
        for name in ("rejected.jsonl", "quality.jsonl")
    )
    return rows, {e["path"]: e["reason"] for e in rejected}, {e["path"]: e for e in quality}


@pytest.fixture
def folder(tmp_path) -> Path:
    raw = tmp_path / "raw"
    for number, subject in enumerate(["anna", "ben"]):
        write(raw / subject / "walk.csv", frame(values=truth(clock(), number), gyroscope=True))
    holes = frame(gyroscope=True)
    holes.loc[300:500, ["x", "gyro_y"]] = np.nan
    write(raw / "cleo" / "holes.csv", holes)
    times = clock(31)
    stack = np.stack([np.concatenate([truth(times, n), turning(times)], axis=1) for n in range(3)])
    np.savez(raw / "stack.npz", X=stack, pid=[7, 8, 8], y=["sit", "run", "sit"])
    return raw


@pytest.mark.parametrize("gyroscope", [False, True])
@pytest.mark.parametrize("name, check", adapter_checks())
def test_keeps_the_adapter_contract(name, check, folder, gyroscope):
    check(Wearables(source_rate_hz=50.0, gyroscope=gyroscope, rotate=True), folder)


def test_from_files_to_a_corpus(folder, tmp_path):
    rows, reasons, quality = prepared(folder, tmp_path / "out", source_rate_hz=50.0, gyroscope=True)
    assert not reasons
    assert [*rows] == [
        *("anna/walk.csv#0", "anna/walk.csv#30", "ben/walk.csv#0", "ben/walk.csv#30", "cleo/holes.csv#0"),
        *("cleo/holes.csv#30", "stack.npz/0#0", "stack.npz/1#0", "stack.npz/2#0"),
    ]
    assert [row["group"] for row in rows.values()][-5:] == ["cleo", "cleo", "7", "8", "8"]
    assert [row["label"] for row in rows.values()][-4:] == ["", "sit", "run", "sit"]
    assert quality["stack.npz/1"]["windows"] == {"kept": 1, "short": 1, "little_observed": 0}
    row = rows["anna/walk.csv#30"]
    assert (row["length"], row["start_s"], row["start"]) == (300, 30.0, "")
    sample = Wearables(gyroscope=True).load(row, None)
    times = 30 + sample.times.astype(float)
    np.testing.assert_allclose(sample.values[:, :3], truth(times), atol=2e-3)
    np.testing.assert_allclose(sample.values[:, 3:] * np.pi, turning(times), atol=5e-3)
    holes = Wearables(gyroscope=True).load(rows["cleo/holes.csv#0"], None)
    np.testing.assert_array_equal(np.flatnonzero(~holes.observed.all(axis=1)), np.arange(180, 301))


class TestFormats:
    @pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "parquet"])
    def test_tables_hold_the_same(self, tmp_path, suffix):
        path = tmp_path / f"p1.{suffix}"
        if suffix == "parquet":
            frame().set_index("time").to_parquet(path)  # time is the index, as actipy has it
        else:
            write(path, sep="\t" if suffix == "tsv" else ",")
        rows = read(path)
        assert found(path)[0].group == "p1"
        assert_true(values(rows))
        assert rows.quality["source_rate_hz"] == 50 and rows.quality["clock"] == "regular"

    @pytest.mark.parametrize(
        "names",
        [
            ["Timestamp", "Acc_X", "Acc_Y", "Acc_Z"],
            ["t", "ax", "ay", "az"],
            ["Time", "Accelerometer X", "Accelerometer Y", "Accelerometer Z"],
        ],
    )
    def test_usual_names_of_columns(self, tmp_path, names):
        read(write(tmp_path / "p1.csv", frame().set_axis(names, axis=1)))

    @pytest.mark.parametrize("header", [True, False])
    def test_decimal_commas(self, tmp_path, header):
        path = write(tmp_path / "p1.csv", sep=";", decimal=",", header=header)
        names = ("time", "x", "y", "z")
        assert_true(values(read(path) if header else read(path, csv_columns=names)))
        assert header or "no header line" in refused(path)

    def test_names_of_columns_that_are_set(self, tmp_path):
        table = frame(gyroscope=True).set_axis([*"abcdefg"], axis=1)
        path = write(tmp_path / "p1.csv", table.assign(what="walk"))
        rows = read(
            path,
            time_column="a",
            accelerometer_columns=("b", "c", "d"),
            gyroscope_columns=("e", "f", "g"),
            gyroscope=True,
            label_column="what",
        )
        assert rows.rows[0]["label"] == "walk"
        assert_true(values(rows), columns=6)
        assert "no column q among a, b" in refused(
            path, time_column="q", accelerometer_columns=("b", "c", "d")
        )

    @pytest.mark.parametrize(
        "stamps, unit, start",
        [
            (lambda t: pd.Timestamp(START) + pd.to_timedelta(t, unit="s"), "s", f"{START}.000"),
            (
                lambda t: [f"{x.isoformat()}+01:00" for x in pd.Timestamp(START) + pd.to_timedelta(t, "s")],
                "s",
                "2014-05-07T12:29:50.000",
            ),
            (lambda t: pd.Timestamp(START).timestamp() + t, "s", f"{START}.000"),
            (lambda t: (pd.Timestamp(START).timestamp() + t) * 1e3, "ms", f"{START}.000"),
            (
                lambda t: np.int64(pd.Timestamp(START).value) + np.round(t * 1e9).astype(int),
                "ns",
                f"{START}.000",
            ),
            (lambda t: t + 100, "s", ""),
        ],
    )
    def test_times(self, tmp_path, stamps, unit, start):
        table = frame().assign(time=stamps(clock()))
        rows = read(write(tmp_path / "p1.csv", table), time_unit=unit)
        assert rows.rows[0]["start"] == start
        assert_true(values(rows))

    def test_datetimes_with_a_zone_do_not_jump_with_summer_time(self, tmp_path):
        times = pd.Timestamp("2014-10-26T00:59:45", tz="UTC") + pd.to_timedelta(clock(), unit="s")
        frame().assign(time=times.tz_convert("Europe/London")).to_parquet(tmp_path / "p1.parquet")
        rows = read(tmp_path / "p1.parquet")
        assert rows.quality["late_samples"] == 0
        assert rows.rows[1]["start"] == "2014-10-26T01:00:15.000"

    def test_a_rate_stands_in_for_times(self, tmp_path):
        path = write(tmp_path / "p1.csv", frame().drop(columns="time"))
        rows = read(path, source_rate_hz=50.0)
        assert_true(values(rows))
        assert "set modality.time_column or, where samples are regular, modality.source_rate_hz" in refused(
            path
        )
        with_times = write(tmp_path / "p2.csv", frame(times=clock(40, 25)))
        assert read(with_times, source_rate_hz=50.0).quality["source_rate_hz"] == 25  # a file's own times win
        assert read(with_times, source_rate_hz=50.0, time_column=None).quality["source_rate_hz"] == 50

    @pytest.mark.parametrize("named", [False, True])
    def test_actigraph_csv(self, tmp_path, named):
        header = [
            "------------ Data File Created By ActiGraph GT3X+ ActiLife v6.13.4 Firmware v3.2.1 date format "
            "dd/MM/yyyy at 50 Hz  Filter Normal -----------",
            *("Serial Number: NEO1F", "Start Time 13:29:50", "Start Date 07/05/2014"),
            *("Epoch Period (hh:mm:ss) 00:00:00", "Download Time 11:25:07", "Download Date 30/05/2014"),
            *("Current Memory Address: 0", "Current Battery Voltage: 4.22     Mode = 12"),
            "--------------------------------------------------",
        ]
        table = frame().drop(columns="time").set_axis([f"Accelerometer {axis}" for axis in "XYZ"], axis=1)
        path = tmp_path / "p1.csv"
        path.write_text("\n".join(header) + "\n" + table.to_csv(index=False, header=named))
        rows = read(path)
        assert rows.rows[0]["start"] == f"{START}.000"
        assert_true(values(rows))

    def test_a_table_of_several_subjects(self, tmp_path):
        parts = [frame(values=truth(clock(), n)).assign(subject=n or np.nan) for n in (0, 7, 12)]
        for path in (tmp_path / "all.csv", tmp_path / "all.parquet"):
            table = pd.concat(parts, ignore_index=True)
            write(path, table) if path.suffix == ".csv" else table.to_parquet(path)
            missing, *records = found(path)
            assert missing == Rejected(f"{path.name}/", "rows without a subject id")
            assert [(record.key, record.group) for record in records] == [
                (f"{path.name}/{subject}", subject) for subject in ("12", "7")
            ]
            rows = records[1].read()
            assert_true(values(rows), seed=7)

    def test_a_file_that_changes_is_read_again(self, tmp_path):
        path = write(tmp_path / "all.csv", frame().assign(subject=1))
        read(path)
        write(path, frame(values=truth(clock(), 5)).assign(subject=1))
        assert_true(values(read(path)), seed=5)

    def test_labels_are_those_of_most_samples_of_a_window(self, tmp_path):
        labels = np.where(clock() < 14, "sit", np.where(clock() < 35, "walk", None))
        rows = read(write(tmp_path / "p1.csv", frame().assign(annotation=labels)))
        assert [row["label"] for row in rows.rows] == ["walk", "walk"]

    def test_arrays_beside_one_another(self, tmp_path):
        stack = np.stack([truth(clock(12), n) for n in range(4)])
        for name, array in {"X": stack, "Y": [0, 1, 1, 0], "pid": [3.0, 3.0, 4.0, 4.0]}.items():
            np.save(tmp_path / f"{name}.npy", array)
        records = found(tmp_path, source_rate_hz=50.0)
        assert [(r.key, r.group, r.label) for r in records] == [
            ("X.npy/0", "3", "0"),
            ("X.npy/1", "3", "1"),
            ("X.npy/2", "4", "1"),
            ("X.npy/3", "4", "0"),
        ]
        np.testing.assert_allclose(values(records[2].read()), truth(np.arange(360) / 30, 2), atol=5e-3)

    def test_an_array_of_one_recording(self, tmp_path):
        np.save(tmp_path / "s1.npy", truth(clock()))
        (record,) = found(tmp_path, source_rate_hz=50.0)
        assert (record.key, record.group) == ("s1.npy", "s1")
        assert len(values(record.read())) == 1200
        assert "set modality.source_rate_hz" in refused(tmp_path)

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_a_pickled_dict_in_an_npy(self, tmp_path, protocol):
        recordings = [np.concatenate([turning(clock(s)), truth(clock(s))], axis=1) for s in (20, 35)]
        content = {
            "X": recordings,
            "y": np.array([1, 0]),
            "y_labels": ["PEN", "ABD"],
            "subject": np.array([10, 7]),
            "side": np.array([1.0, 0.0]),
            "X_labels": ["wx", "wy", "wz", "ax", "ay", "az"],
        }
        path = tmp_path / "watch.npy"
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(buffer, {"shape": (), "fortran_order": False, "descr": "|O"})
        path.write_bytes(buffer.getvalue() + _old_pickle(np.array(content, dtype=object), protocol))
        records = found(path, source_rate_hz=50.0, gyroscope=True, min_window_s=5.0)
        assert [(r.key, r.group, r.label) for r in records] == [
            ("watch.npy/0", "10", "ABD"),
            ("watch.npy/1", "7", "PEN"),
        ]
        rows = records[1].read()
        assert_true(values(rows), columns=6)
        np.testing.assert_allclose(values(rows)[:, 3:], turning(steps(1050)), atol=5e-3)

    def test_recordings_of_other_lengths_in_an_npz(self, tmp_path):
        ragged = np.empty(2, dtype=object)
        ragged[:] = [truth(clock(20)), truth(clock(35))]
        np.savez(tmp_path / "all.npz", X=ragged, subject=["a", "b"], split=["dev", "train"])
        records = found(tmp_path / "all.npz", source_rate_hz=50.0)
        assert [len(values(record.read())) for record in records] == [600, 900]
        assert [record.split for record in records] == ["valid", "train"]
        assert [r.key for r in Wearables().records(tmp_path, "valid")] == ["all.npz/0"]


def _old_pickle(array: np.ndarray, protocol: int) -> bytes:
    """As numpy writes objects; with protocol 2 bytes are written as `_codecs.encode`."""
    if protocol == 5:  # numpy would hand over buffers, which np.save never does
        return pickle.dumps(array, protocol=4)
    return pickle.dumps(array, protocol=protocol)


class TestBadInput:
    @pytest.mark.parametrize("declared, factor, advice", [("g", G, "m/s2"), ("m/s2", 1.0, "g")])
    def test_wrong_units(self, tmp_path, declared, factor, advice):
        path = write(tmp_path / "p1.csv", frame(values=factor * truth(clock())))
        assert refused(path, units=declared).endswith(f"set modality.units={advice}")
        np.testing.assert_allclose(values(read(path, units=advice)), truth(np.arange(1200) / 30), atol=2e-3)

    @pytest.mark.parametrize("factor", [1000, 0.02])
    def test_units_that_are_neither(self, tmp_path, factor):
        path = write(tmp_path / "p1.csv", frame(values=factor * truth(clock())))
        assert "neither g nor m/s2, or gravity was removed" in refused(path)

    def test_wrong_units_of_the_gyroscope(self, tmp_path):
        table = frame(gyroscope=True)
        table[["gyro_x", "gyro_y", "gyro_z"]] = np.rad2deg(turning(clock()))
        path = write(tmp_path / "p1.csv", table)
        assert "set modality.gyroscope_units=deg/s" in refused(path, gyroscope=True)
        rows = read(path, gyroscope=True, gyroscope_units="deg/s")
        np.testing.assert_allclose(values(rows)[:, 3:], turning(steps(1200)), atol=5e-3)

    def test_files_of_other_rates_give_the_same_windows(self, tmp_path):
        for rate_hz in (20, 30, 50, 100, 128):
            write(tmp_path / f"p{rate_hz}.csv", frame(times=clock(40, rate_hz)))
        rows, _, quality = prepared(tmp_path, beside(tmp_path))
        for row in rows.values():
            times = row["start_s"] + np.arange(row["length"]) / 30
            np.testing.assert_allclose(row["values"], truth(times), atol=0.02)
            assert row["length"] in (900, *range(298, 301))
        assert quality["p20.csv"]["notes"] == ["upsampled: nothing faster than 10 Hz was recorded"]
        assert quality["p128.csv"]["notes"] == []

    def test_irregular_times(self, tmp_path):
        rng = np.random.default_rng(0)
        times = np.sort(rng.uniform(0, 40, 4000))
        times = times[np.concatenate([[True], np.diff(times) > 1e-4])]
        rows = read(write(tmp_path / "p1.csv", frame(times=times)))
        assert rows.quality["clock"] == "irregular"
        first = rows.rows[0]["values"]
        seen = np.isfinite(first).all(axis=1)
        assert seen.mean() > 0.8
        expected = truth(times[0] + np.arange(900) / 30)
        np.testing.assert_allclose(first[seen], expected[seen], atol=0.06)

    def test_gaps_stay_gaps(self, tmp_path):
        table = frame()
        rows = read(write(tmp_path / "p1.csv", table[(table.time <= 12) | (table.time >= 17)]))
        seen = np.isfinite(values(rows)).all(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(~seen), np.arange(361, 510))
        assert (rows.quality["gaps"], rows.quality["gap_s"]) == (1, 5.0)
        np.testing.assert_allclose(values(rows)[seen], truth(np.arange(1200) / 30)[seen], atol=0.02)

    def test_windows_in_a_long_gap_are_left_out(self, tmp_path):
        table = frame(times=clock(120))
        rows = read(write(tmp_path / "p1.csv", table[(table.time <= 40) | (table.time >= 95)]))
        assert [row["part"] for row in rows.rows] == ["0", "90"]
        assert rows.quality["windows"] == {"kept": 2, "short": 0, "little_observed": 2}
        lenient = read(tmp_path / "p1.csv", min_observed=0.3)
        assert [row["part"] for row in lenient.rows] == ["0", "30", "90"]

    @pytest.mark.parametrize("value", [np.nan, 2e7, -2e7, np.inf, 1e300])
    @pytest.mark.parametrize("missing", [1, 50])
    def test_bad_values_in_the_middle(self, tmp_path, value, missing):
        table = frame(times=clock(20, 30))
        table.loc[300 : 299 + missing, "y"] = value
        rows = read(write(tmp_path / "p1.csv", table))
        wrong = ~np.isfinite(values(rows))
        np.testing.assert_array_equal(np.flatnonzero(wrong.all(axis=1)), np.arange(300, 300 + missing))
        assert wrong.sum() == 3 * missing
        counts = rows.quality["accelerometer"]
        absurd = np.isfinite(np.float64(value)) and abs(value) < 1e38
        assert counts["absurd_samples" if absurd else "missing_samples"] == missing
        sample = Wearables().load({**rows.rows[0], "label": "", "group": ""}, None)
        assert (sample.values[wrong] == 0).all() and (sample.observed == ~wrong).all()

    def test_texts_among_the_numbers_are_missing(self, tmp_path):
        table = frame(times=clock(20, 30)).astype(object)
        table.loc[100, "x"], table.loc[200, "time"] = "broken", "broken"
        rows = read(write(tmp_path / "p1.csv", table))
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(values(rows)[:, 0])), [100, 200])

    def test_a_constant_sensor(self, tmp_path):
        still = np.tile([0.0, 0.0, 1.0], (2000, 1))
        assert "constant" in refused(write(tmp_path / "p1.csv", frame(values=still)))
        assert "constant" in refused(write(tmp_path / "p1.csv", frame(values=0 * still)))

    @pytest.mark.parametrize("column", ["y", "gyro_y"])
    def test_a_dead_axis(self, tmp_path, column):
        table = frame(gyroscope=True).assign(**{column: 0.25})
        assert "axis y of the" in refused(write(tmp_path / "p1.csv", table), gyroscope=True)

    def test_a_stuck_stretch_is_not_observed(self, tmp_path):
        table = frame(times=clock(60, 30))
        table.loc[600:1000, ["x", "y", "z"]] = [0.0, 0.0, 0.0]
        rows = read(write(tmp_path / "p1.csv", table))
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(values(rows)[:, 0])), np.arange(600, 1001))
        assert rows.quality["accelerometer"] == {
            "missing_samples": 0,
            "absurd_samples": 0,
            "constant_samples": 401,
        }

    def test_times_out_of_order_or_repeated(self, tmp_path):
        table = frame(times=clock(20, 30))
        shuffled = table.iloc[[*range(100), 101, 100, *range(102, 200), 199, 199, *range(200, 600)]]
        rows = read(write(tmp_path / "p1.csv", shuffled))
        assert rows.quality["late_samples"] == 3
        seen = np.isfinite(values(rows)).all(axis=1)
        assert (~seen).sum() == 1  # number 100 came too late
        np.testing.assert_allclose(values(rows)[seen], truth(np.arange(600) / 30)[seen], atol=2e-3)

    @pytest.mark.parametrize(
        "times",
        [
            pytest.param(np.floor(clock()), id="a clock of whole seconds"),
            pytest.param(clock()[::-1], id="backwards"),
            pytest.param(np.concatenate([clock(20), clock(20)]), id="a clock that was set back"),
            pytest.param(np.where(clock() < 5, clock(), np.nan), id="missing"),
        ],
    )
    def test_a_clock_that_cannot_be_trusted(self, tmp_path, times):
        reason = refused(write(tmp_path / "p1.csv", frame(values=truth(clock()), times=times)))
        assert "the clock is too coarse, or the rows are out of order" in reason

    def test_a_clock_that_was_set_by_years(self, tmp_path):
        times = clock() + np.where(clock() < 5, 0, 1.4e9)
        assert "the clock was set meanwhile" in refused(
            write(tmp_path / "p1.csv", frame(times, truth(clock())))
        )

    @pytest.mark.parametrize("factor", [1000, 1e6])
    def test_a_wrong_unit_of_time(self, tmp_path, factor):
        path = write(tmp_path / "p1.csv", frame().assign(time=clock() * factor))
        assert "is modality.time_unit right" in refused(path)

    def test_a_csv_without_a_header(self, tmp_path):
        path = write(tmp_path / "p1.csv", header=False)
        assert "name the columns, for example modality.csv_columns=[time,x,y,z]" in refused(path)
        assert_true(values(read(path, csv_columns=("time", "x", "y", "z"))))
        assert "4 columns where modality.csv_columns names 2" in refused(path, csv_columns=("x", "y"))

    def test_a_csv_without_the_columns(self, tmp_path):
        path = write(tmp_path / "p1.csv", frame().rename(columns={"z": "height"}))
        reason = refused(path)
        assert "among time, x, y, height: set modality.accelerometer_columns=[X,Y,Z]" in reason
        assert "gyroscope" in refused(write(path), gyroscope=True)

    @pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet", "npy", "npz", "cwa", "gt3x"])
    def test_an_empty_file(self, tmp_path, suffix):
        (tmp_path / f"p1.{suffix}").touch()
        assert refused(tmp_path / f"p1.{suffix}") == "the file is empty"

    def test_a_header_and_nothing_else(self, tmp_path):
        assert refused(write(tmp_path / "p1.csv", frame()[:0])) == "it has a header and no samples"
        assert "fewer than two" in refused(write(tmp_path / "p1.csv", frame()[:1]))
        (tmp_path / "p2.csv").write_text("\n")
        assert refused(tmp_path / "p2.csv") == "the file is empty"

    @pytest.mark.parametrize("suffix", ["csv.gz", "parquet", "npy", "npz"])
    def test_a_damaged_file(self, tmp_path, suffix):
        path = tmp_path / f"p1.{suffix}"
        path.write_bytes(b"neither one nor the other, but long enough to be something" * 9)
        assert "ot" in refused(path)
        whole = tmp_path / f"whole.{suffix}"
        if suffix == "csv.gz":
            whole.write_bytes(gzip.compress(frame().to_csv().encode()))
        elif suffix == "parquet":
            frame().to_parquet(whole)
        else:
            np.save(whole, truth(clock())) if suffix == "npy" else np.savez(whole, X=truth(clock()))
        path.write_bytes(whole.read_bytes()[:-200])
        assert "not readable as" in refused(path, source_rate_hz=50.0)

    def test_short_recordings(self, tmp_path):
        path = write(tmp_path / "p1.csv", frame(times=clock(9)))
        assert "shorter than modality.min_window_s=10" in refused(path)
        assert len(read(path, min_window_s=5.0).rows) == 1

    def test_arrays_without_subjects(self, tmp_path):
        stack = np.stack([truth(clock(12), n) for n in range(3)])
        path = tmp_path / "S01.npz"
        np.savez(path, X=stack)
        assert "no subject ids: put an array pid" in refused(path)
        records = found(path, group_pattern=r"(S\d+)")
        assert [record.group for record in records] == ["S01"] * 3
        np.savez(path, X=stack, pid=[1, 2])
        assert "pid has shape [2]" in refused(path)
        np.savez(path, X=stack, pid=[1, np.nan, 2])
        assert found(path)[1] == Rejected("S01.npz/1", "no subject id")

    @pytest.mark.parametrize(
        "arrays, reason",
        [
            ({"X": np.zeros((5, 3, 100))}, "looks like (n, c, t)"),
            ({"X": np.zeros(5)}, "X has shape [5]"),
            ({"X": np.zeros((0, 100, 3))}, "no recordings"),
            (
                {"acceleration": np.zeros((5, 100, 3))},
                "no samples (X, x, data, samples) in it, only acceleration",
            ),
            ({"X": truth(clock())[:, [0, 1]]}, "2 channels without names"),
            ({"X": np.array([["a"] * 3] * 9)}, "where numbers (t, c) are wanted"),
            ({"X": truth(clock()), "channel_names": ["x", "y"]}, "3 channels and 2 names"),
        ],
    )
    def test_arrays_of_other_shapes(self, tmp_path, arrays, reason):
        np.savez(tmp_path / "x.npz", **arrays)
        assert reason in refused(tmp_path / "x.npz", source_rate_hz=50.0)

    def test_other_files_are_not_looked_at(self, tmp_path):
        for name in (".hidden.csv", "notes.txt", "LICENSE"):
            (tmp_path / name).write_text("x,y,z\n")
        assert found(tmp_path) == []
        with pytest.raises(UserError, match="Nothing in"):
            prepared(tmp_path, beside(tmp_path))

    def test_one_bad_file_does_not_stop_the_others(self, folder, tmp_path):
        (folder / "anna" / "empty.csv").touch()
        write(folder / "participants.csv", pd.DataFrame({"subject": [1, 2], "age": [30, 40]}))
        rows, reasons, _ = prepared(folder, tmp_path / "out", source_rate_hz=50.0)
        assert len(rows) == 9
        assert [*reasons] == ["anna/empty.csv", "participants.csv"]


class TestPickles:
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        st.sampled_from(["f4", ">f8", "i8", "u1", "?", "U3", "S2", "O"]),
        st.sampled_from([(), (0,), (3,), (2, 3)]),
        st.booleans(),
        st.sampled_from([2, 3, 4]),
    )
    def test_hold_what_numpy_would_read(self, value, dtype, shape, fortran, protocol):
        array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
        array = np.asfortranarray(array) if fortran and array.ndim else array
        content = {"value": value, "array": array, "number": np.float32(0.5), "list": [array, array]}
        loaded = pickles.load(
            io.BytesIO(pickle.dumps(np.array(content, dtype=object), protocol=protocol))
        ).item()
        assert loaded["value"] == value and loaded["number"] == 0.5
        for copy in (loaded["array"], *loaded["list"]):
            assert copy.dtype == array.dtype
            np.testing.assert_array_equal(copy, array)

    def test_run_nothing(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {tmp_path}/owned",)

        np.save(tmp_path / "evil.npy", np.array({"X": Evil(), "subject": [1]}, dtype=object))
        reason = refused(tmp_path / "evil.npy", source_rate_hz=50.0)
        assert (
            "its pickle wants to run posix.system" in reason or "its pickle wants to run nt.system" in reason
        )
        np.savez(tmp_path / "evil.npz", X=np.array([Evil()], dtype=object), subject=[1])
        assert "its pickle wants to run" in refused(tmp_path / "evil.npz", source_rate_hz=50.0)
        assert not (tmp_path / "owned").exists()

    @pytest.mark.parametrize("name", ["builtins.eval", "numpy.load", "numpy.memmap", "pickle.loads"])
    def test_reach_no_other_function(self, name):
        module, _, function = name.partition(".")
        stream = f"c{module}\n{function}\n(S'1'\ntR.".encode()
        with pytest.raises(ValueError, match=f"its pickle wants to run {name}"):
            pickles.load(io.BytesIO(stream))

    def test_forge_no_dtype(self):
        """Bytes that pass for a list of objects are addresses: numpy itself would read any memory by them."""
        array = np.empty(1, dtype=object)
        reconstruct, arguments, (version, shape, _, fortran, _) = array.__reduce__()

        class Forged:
            def __reduce__(self):
                return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)

        class Array:
            def __reduce__(self):
                return reconstruct, arguments, (version, shape, Forged(), fortran, b"\x01" * 8)

        with pytest.raises(ValueError, match="reshape"):
            pickles.load(io.BytesIO(pickle.dumps(Array(), protocol=3)))

    @pytest.mark.parametrize(
        "content", [np.zeros(2, "f4,i4"), np.zeros(2, "M8[s]"), np.zeros(2, "c8"), np.zeros(2, "V3")]
    )
    def test_hold_no_other_dtype(self, content):
        with pytest.raises(ValueError, match="its pickle holds an array of"):
            pickles.load(io.BytesIO(pickle.dumps(content, protocol=3)))

    def test_may_be_damaged_in_any_way(self):
        whole = pickle.dumps(np.array({"X": [np.zeros(3)], "s": "text"}, dtype=object), protocol=4)
        rng = np.random.default_rng(0)
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] = rng.integers(256)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "setrecursionlimit", lambda _: None)
                try:
                    pickles.load(io.BytesIO(bytes(damaged[: rng.integers(1, len(whole) + 1)])))
                except ValueError:
                    pass

    def test_may_share_parts_and_hold_themselves(self):
        endless: list = [np.zeros(2)]
        endless += [endless] * 2
        loaded = pickles.load(io.BytesIO(pickle.dumps(endless)))
        assert loaded[1] is loaded[2] is loaded
        bomb: list = [0]
        for _ in range(60):  # 3 to the power of 60 if each were looked at apart
            bomb = [bomb] * 3
        assert len(pickles.load(io.BytesIO(pickle.dumps(bomb)))) == 3

    def test_deeper_than_the_stack(self):
        deep = b"(" * 100_000 + b"l" * 100_000 + b"."
        with pytest.raises(ValueError, match="RecursionError"):
            pickles.load(io.BytesIO(deep))

    def test_make_no_numbers_without_bytes(self):
        """`bytes(10**12)` would fill the memory."""
        _, arguments, (version, shape, dtype, fortran, _) = np.zeros(3).__reduce__()

        class Array:
            def __reduce__(self):
                return np.zeros(3).__reduce__()[0], arguments, (version, shape, dtype, fortran, 10**12)

        with pytest.raises(ValueError, match="no bytes"):
            pickles.load(io.BytesIO(pickle.dumps(Array(), protocol=3)))


def resampled(times, samples, rate_hz: float = 30.0) -> np.ndarray:
    times = np.asarray(times, dtype=float)
    num_steps = math.floor(times[-1] * rate_hz + 1e-6) + 1
    return signals.resample(times, samples, signals.Clock.of(times), rate_hz, num_steps)


class TestSignals:
    @given(
        st.lists(st.sampled_from([0.005, 0.01, 0.02, 0.02, 0.02, 0.03, 0.2, 1.0]), min_size=3, max_size=60),
        st.sets(st.integers(0, 59), max_size=9),
        st.sampled_from([10.0, 30.0, 37.5]),
    )
    def test_a_step_is_observed_where_samples_on_both_sides_are_near(self, gaps, holes, rate_hz):
        times = np.concatenate([[0.0], np.cumsum(gaps)])
        samples = truth(times)
        samples[[hole for hole in holes if hole < len(times)]] = np.nan
        out = resampled(times, samples, rate_hz)
        longest_s = 1.5 * np.percentile(gaps, 95)
        there = np.isfinite(samples).all(axis=1)
        for step, row in enumerate(out):
            time = step / rate_hz
            around = [
                there[i] and there[i + 1] and gaps[i] <= longest_s + 1e-9
                for i in range(len(gaps))
                if times[i] - 1e-7 <= time <= times[i + 1] + 1e-7
            ]
            assert np.isfinite(row).all() == any(around)
            assert np.isfinite(row).all() or np.isnan(row).all()

    @pytest.mark.parametrize("rate_hz", [20, 25, 30, 31.25, 50, 64, 100, 99.3, 256])
    def test_slow_movement_is_kept(self, rate_hz):
        times = clock(20, rate_hz)
        out = resampled(times, truth(times))
        # Between samples at 20 Hz a cubic has to guess; the end of a stretch has samples on one side only.
        tolerance = 0.01 if rate_hz < 30 else 2e-3
        np.testing.assert_allclose(out[9:-9], truth(steps(len(out)))[9:-9], atol=tolerance)
        np.testing.assert_allclose(out, truth(steps(len(out))), atol=5 * tolerance)

    def test_the_same_rate_changes_nothing(self):
        times = clock(20, 30)
        samples = np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32)
        np.testing.assert_allclose(resampled(times, samples), samples, atol=1e-6)

    @pytest.mark.parametrize("irregular", [False, True])
    def test_fast_vibration_does_not_come_back_as_slow_movement(self, irregular):
        times = clock(40, 200)
        if irregular:
            jitter = np.random.default_rng(0).uniform(-0.45, 0.45, len(times)) / 200
            times = np.sort(np.maximum(times + jitter, 0))
            times -= times[0]
        vibration = np.sin(2 * np.pi * 31.0 * times)[:, None]  # picking samples at 30 Hz would show 1 Hz
        assert signals.Clock.of(times).regular != irregular
        # Lines between uneven samples leave some noise; without a filter 1.0 would be left
        assert np.abs(resampled(times, vibration)[30:-30]).max() < (0.1 if irregular else 0.02)

    def test_long_recordings_are_done_in_pieces(self, monkeypatch):
        times = np.delete(clock(60, 100), slice(3000, 3100))
        samples = truth(times) + np.random.default_rng(0).normal(size=(len(times), 3))
        whole = resampled(times, samples)
        monkeypatch.setattr(signals, "RESAMPLED_STEPS", 97)
        np.testing.assert_allclose(resampled(times, samples), whole, atol=1e-5)

    @given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.0, np.nan]), min_size=1, max_size=20))
    def test_only_later_times_are_kept(self, times):
        latest, expected = -np.inf, []
        for time in times:
            expected.append(time > latest)
            latest = max(latest, time) if time == time else latest
        assert signals.increasing(np.array(times)).tolist() == expected

    @given(st.lists(st.sampled_from(["", "sit", "run"]), max_size=12))
    def test_the_most_frequent_label(self, names):
        counts = collections.Counter(name for name in names if name)
        expected = min(counts, key=lambda name: (-counts[name], name)) if counts else ""
        assert signals.most_frequent(np.array(names, dtype=object)) == expected

    @given(
        st.sampled_from([7, 7.0, "7", " 7 ", b"7", np.int64(7), np.float32(7), np.float64(7), np.str_("7")])
    )
    def test_ids_are_the_same_text_however_they_are_stored(self, value):
        assert text(value) == "7"

    def test_missing_ids_are_empty(self):
        assert {text(value) for value in (None, np.nan, pd.NA, pd.NaT, "", " ")} == {""}
        assert text("07") == "07" and text(7.5) == "7.5"


def worn(minutes: float = 15, rate_hz: float = 30.0, seed: int = 0) -> np.ndarray:
    """Half a minute in each of many postures, still but for the sensor's noise; t 3, in g."""
    rng = np.random.default_rng(seed)
    postures = rng.normal(size=(round(minutes * 2), 3))
    postures /= np.linalg.norm(postures, axis=1, keepdims=True)
    still = np.repeat(postures, round(30 * rate_hz), axis=0)
    return (still + rng.normal(0, 0.005, still.shape)).astype(np.float32)


def with_actipy(samples: np.ndarray, rate_hz: float = 30.0) -> pd.DataFrame:
    index = pd.Timestamp(START) + pd.to_timedelta(np.arange(len(samples)) / rate_hz, unit="s")
    return pd.DataFrame(samples, columns=["x", "y", "z"], index=pd.DatetimeIndex(index, name="time"))


class TestCalibration:
    gain, offset = np.array([1.03, 0.97, 1.02]), np.array([0.03, -0.02, 0.04])

    def test_gain_and_offset_are_found(self):
        real = worn()
        samples = ((real - self.offset) / self.gain).astype(np.float32)
        calibrated, report = signals.calibrated(samples, 30.0)
        assert report["applied"] and report["error_before_mg"] > 15 and report["error_after_mg"] < 1
        np.testing.assert_allclose(report["gain"], self.gain, atol=2e-3)
        np.testing.assert_allclose(report["offset_g"], self.offset, atol=2e-3)
        np.testing.assert_allclose(calibrated, real, atol=3e-3)

    def test_agrees_with_actipy(self):
        processing = pytest.importorskip("actipy.processing")
        samples = ((worn() - self.offset) / self.gain).astype(np.float32)
        theirs, info = processing.calibrate_gravity(with_actipy(samples), stdtol=signals.STILL_G)
        ours, report = signals.calibrated(samples, 30.0)
        assert report["still_windows"] == info["CalibNumSamples"] == 90
        assert report["error_before_mg"] == pytest.approx(info["CalibErrorBefore(mg)"], abs=0.01)
        np.testing.assert_allclose(ours, theirs.to_numpy(), atol=2e-3)

    def test_idle_stretches_do_not_spoil_it(self, tmp_path):
        """Devices that sleep repeat one value, which is then the most frequent posture: actipy issue 65."""
        samples = ((worn() - self.offset) / self.gain).astype(np.float32)
        idle = np.concatenate([samples, np.tile(samples[-1] * np.float32(1.1), (30 * 600, 1))])
        reports = [
            read(write(tmp_path / "p1.csv", frame(steps(len(x)), x))).quality["calibration"]
            for x in (samples, idle)
        ]
        assert reports[0] == reports[1] and reports[0]["applied"]

    def test_is_skipped_with_the_reason(self, tmp_path):
        few = worn(minutes=5)
        one_way = np.abs(worn())
        moving = truth(steps(30 * 900))
        off = worn() * np.random.default_rng(0).choice([0.9, 1.1], (900 * 30 // 900, 1)).repeat(900, axis=0)
        for samples, reason in [
            (few, "fewer than 50 still windows"),
            (moving, "fewer than 50 still windows"),
            (one_way, "do not point both ways"),
            (off, "did not bring still windows near 1 g"),
        ]:
            path = write(tmp_path / "p1.csv", frame(steps(len(samples)), samples))
            rows = read(path)
            report = rows.quality["calibration"]
            assert not report["applied"] and reason in report["reason"]
            assert (report["error_before_mg"] is None) == (samples is moving)
            np.testing.assert_allclose(values(rows), samples, atol=1e-5)
        assert "modality.calibrate=false" in read(path, calibrate=False).quality["calibration"]["reason"]

    def test_windows_are_calibrated(self, tmp_path):
        samples = (worn() - self.offset) / self.gain
        rows = read(write(tmp_path / "p1.csv", frame(steps(len(samples)), samples)))
        np.testing.assert_allclose(values(rows), worn(), atol=3e-3)


class TestNonWear:
    def test_agrees_with_actipy(self, tmp_path):
        processing = pytest.importorskip("actipy.processing")
        lying = np.tile([0.0, 0.6, 0.8], (30 * 60 * 25, 1)) + np.random.default_rng(1).normal(
            0, 0.003, (45000, 3)
        )
        samples = np.concatenate(
            [truth(steps(18000)), lying, truth(steps(9000)), lying[:9000], truth(steps(9000))]
        )
        (start,), (length,) = zip(
            *processing.find_nonwear_segments(
                with_actipy(samples), patience="20m", stdtol=signals.STILL_G
            ).items(),
            strict=True,
        )
        ours = np.flatnonzero(signals.not_worn(samples, 30.0, 20.0))
        assert ours[0] / 30 == (start - pd.Timestamp(START)).total_seconds()
        # actipy leaves the last still window to the wearer
        assert (ours[-1] + 1 - ours[0]) / 30 == length.total_seconds() + signals.BLOCK_S
        assert len(ours) == ours[-1] + 1 - ours[0]
        path = write(tmp_path / "p1.csv", frame(steps(len(samples)), samples))
        rows = read(path, nonwear_minutes=20.0)
        assert rows.quality["nonwear_s"] == pytest.approx(len(ours) / 30)
        assert rows.quality["windows"]["little_observed"] == 50
        assert len(read(path).rows) == len(rows.rows) + 50

    def test_a_night_without_a_move_is_refused_when_all_there_is(self, tmp_path):
        still = np.tile([0.0, 0.6, 0.8], (10000, 1)) + np.random.default_rng(1).normal(0, 0.003, (10000, 3))
        path = write(tmp_path / "p1.csv", frame(steps(10000), still))
        assert "were not worn" in refused(path, nonwear_minutes=5.0)

    def test_gaps_do_not_count_as_movement(self):
        still = np.tile([0.0, 0.6, 0.8], (3000, 1)) + np.random.default_rng(1).normal(0, 0.003, (3000, 3))
        still[1000:1500] = np.nan
        assert signals.not_worn(still, 30.0, 1.5).all()
        assert not signals.not_worn(still, 30.0, 2.0).any()


class TestWindows:
    @given(st.floats(2, 100), st.sampled_from([20.0, 30.0, 50.0]), st.floats(1, 30), st.floats(1, 1.7))
    def test_cover_the_recording(self, seconds, rate_hz, min_window_s, factor):
        from modalities.wearables.recordings import Recording
        from modalities.wearables.windows import Windowing

        settings = {
            name: p.default
            for name, p in inspect.signature(Wearables).parameters.items()
            if p.default != p.empty
        }
        fields = {name: settings[name] for name in Windowing.__dataclass_fields__}
        window_s = min_window_s * factor
        windowing = Windowing(**{**fields, "min_window_s": min_window_s, "window_s": window_s})
        times = clock(seconds, rate_hz)
        total = math.floor(times[-1] * 30 + 1e-6) + 1
        size = round(window_s * 30)
        try:
            rows = windowing.rows(Recording(truth(times), times))
        except ValueError as error:
            assert "shorter" in str(error) and total < round(min_window_s * 30)
            return
        lengths = [row["length"] for row in rows.rows]
        assert set(lengths[:-1]) <= {size}
        assert min(lengths) >= round(min_window_s * 30) - 1 and max(lengths) <= size
        rest = total - sum(lengths)
        assert rest == 0 or (rest == total % size < round(min_window_s * 30))
        assert [row["start_s"] for row in rows.rows] == [size * n / 30 for n in range(len(rows.rows))]
        assert len({row["part"] for row in rows.rows}) == len(lengths)

    def test_movement_weighs(self, tmp_path):
        rng = np.random.default_rng(0)
        still = np.tile([0.0, 0.6, 0.8], (900, 1)) + rng.normal(0, 0.003, (900, 3))
        some = still + 0.1 * np.sin(2 * np.pi * steps(900))[:, None] * [0, 0.6, 0.8]
        much = still + 0.5 * np.sin(2 * np.pi * steps(900))[:, None] * [0, 0.6, 0.8]
        path = write(tmp_path / "p1.csv", frame(steps(2700), np.concatenate([still, some, much])))
        weights = [row["weight"] for row in read(path).rows]
        assert 0.1 <= weights[0] < 0.15 and weights[2] == 1
        assert weights[1] == pytest.approx(0.1 + 0.9 * (0.1 * 2 / np.pi) / 0.1, rel=0.02)
        assert [row["weight"] for row in read(path, weight_floor=1.0).rows] == [1, 1, 1]

    def test_gaps_do_not_weigh(self, tmp_path):
        table = frame(times=clock(30, 30))
        rows = read(write(tmp_path / "p1.csv", table[(table.time < 5) | (table.time > 14)]))
        whole = read(write(tmp_path / "p1.csv", table))
        assert rows.rows[0]["weight"] == pytest.approx(whole.rows[0]["weight"], rel=0.2)


class TestLoading:
    row = types.MappingProxyType({"label": "walk", "group": "anna"})

    def test_values_are_clipped_and_scaled(self):
        window = np.array(
            [[0.5, -30, 9, np.pi, -np.pi / 2, 0], [1, 1, 1, np.nan, np.nan, np.nan]], np.float32
        )
        sample = Wearables(gyroscope=True).load({**self.row, "values": window}, None)
        np.testing.assert_allclose(sample.values, [[0.5, -8, 8, 1, -0.5, 0], [1, 1, 1, 0, 0, 0]])
        assert sample.observed.tolist() == [[True] * 6, [True] * 3 + [False] * 3]
        assert (sample.label, sample.group) == ("walk", "anna")
        np.testing.assert_allclose(sample.times, [0, 1 / 30], rtol=1e-6)

    def test_rotation_turns_all_sensors_alike(self):
        turn = np.concatenate([truth(steps(90)), truth(steps(90))], axis=1).astype(np.float32)
        turn[:5] = np.nan
        row = {**self.row, "values": turn}
        adapter = Wearables(gyroscope=True, rotate=True)
        original = adapter.load(row, None).values
        seen = []
        for seed in range(40):
            sample = adapter.load(row, np.random.default_rng(seed))
            first, second = sample.values[:, :3], sample.values[:, 3:] * np.pi
            np.testing.assert_allclose(first, second, atol=1e-5)
            norms = np.linalg.norm(original[:, :3], axis=1)
            np.testing.assert_allclose(np.linalg.norm(first, axis=1), norms, atol=1e-5)
            assert not sample.observed[:5].any() and (sample.values[:5] == 0).all()
            seen.append(first[50] / norms[50])
        assert np.linalg.norm(np.mean(seen, axis=0)) < 0.4  # directions of all kinds
        assert not np.allclose(first, original[:, :3], atol=0.1)
        still = Wearables(gyroscope=True).load(row, np.random.default_rng(0))
        np.testing.assert_array_equal(still.values, original)

    @pytest.mark.parametrize("rate_hz", [10.0, 20.0, 30.0, 50.0, 100.0])
    def test_about_five_frames_a_second(self, rate_hz):
        import torch

        adapter = Wearables(rate_hz=rate_hz)
        encoder = adapter.feature_encoder(16)
        frames = int(encoder.output_lengths(torch.tensor([adapter.spec.max_len])))
        assert 4.5 <= frames / 30 <= 6
        assert 0.5 <= encoder.receptive_field / rate_hz <= 1.2


class TestSettings:
    def test_all_that_changes_rows_is_public(self):
        """`prepare` tells prepared folders apart by public attributes."""
        parameters = inspect.signature(Wearables).parameters
        adapter = Wearables(window_s=45.0, units="m/s2", group_pattern="(.)", csv_columns=("x", "y", "z"))
        public = {name for name in vars(adapter) if not name.startswith("_")}
        assert public == {*parameters, "spec"} - {"clip_g", "rotate"}
        assert (adapter.window_s, adapter.units, adapter.group_pattern) == (45.0, "m/s2", "(.)")
        assert adapter.spec.max_len == 1350

    @pytest.mark.parametrize(
        "settings",
        [
            {"min_window_s": 40.0},
            {"min_window_s": 0.0},
            {"rate_hz": 0.0},
            {"min_observed": 0.0},
            {"weight_floor": 1.5},
            {"group_pattern": "S\\d+"},
            {"label_pattern": "(S"},
        ],
    )
    def test_impossible_ones_are_told(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            Wearables(**settings)

    def test_patterns_find_subject_and_label_in_the_path(self, tmp_path):
        for name in ("walk_1/sub_3.csv", "jog_2/sub_4.csv", "jog_2/other.csv"):
            write(tmp_path / name)
        records = found(tmp_path, group_pattern=r"sub_(\d+)", label_pattern=r"^([a-z]+)")
        assert isinstance(records[0], Rejected) and "finds no subject" in records[0].reason
        assert [(r.group, r.label) for r in records[1:]] == [("4", "jog"), ("3", "walk")]
        assert [r.group for r in found(tmp_path)] == ["jog_2", "jog_2", "walk_1"]


def fake_actipy(monkeypatch, read_device) -> None:
    module = types.ModuleType("actipy")
    module.read_device = read_device
    monkeypatch.setitem(sys.modules, "actipy", module)


class TestDevices:
    def test_are_read_as_they_were_recorded(self, tmp_path, monkeypatch):
        (tmp_path / "p1.cwa.gz").write_bytes(b"x")
        asked = {}

        def read_device(path, **options):
            asked.update(options, path=path)
            print("Reading file...")
            table = with_actipy(truth(clock(40, 100)), 100.0)
            gyroscope = np.rad2deg(turning(clock(40, 100)))
            for axis, column in zip("xyz", gyroscope.T, strict=True):
                table[f"gyro_{axis}"] = column
            return table, {"Device": "Axivity", "DeviceID": 12, "ReadErrors": 0, "Filename": "secret"}

        fake_actipy(monkeypatch, read_device)
        # A device says its own units: the settings are for other files
        rows, reasons, quality = prepared(tmp_path, beside(tmp_path), units="m/s2", gyroscope=True)
        assert not reasons
        assert rows["p1.cwa.gz#0"]["group"] == "p1" and rows["p1.cwa.gz#0"]["start"] == f"{START}.000"
        assert_true(rows["p1.cwa.gz#0"]["values"], columns=6)
        np.testing.assert_allclose(rows["p1.cwa.gz#0"]["values"][:, 3:], turning(steps(900)), atol=5e-3)
        assert quality["p1.cwa.gz"]["device"] == {"Device": "Axivity", "DeviceID": 12, "ReadErrors": 0}
        assert asked["path"] == str(tmp_path / "p1.cwa.gz")
        off = ("lowpass_hz", "calibrate_gravity", "detect_nonwear", "resample_hz", "verbose")
        assert not any(asked[name] for name in off)

    def test_without_a_gyroscope(self, tmp_path, monkeypatch):
        (tmp_path / "p1.gt3x").write_bytes(b"x")
        fake_actipy(monkeypatch, lambda path, **_: (with_actipy(truth(clock())), {}))
        assert "set modality.gyroscope=false" in refused(tmp_path, gyroscope=True)

    def test_without_actipy(self, tmp_path, monkeypatch):
        (tmp_path / "p1.gt3x").write_bytes(b"x")
        monkeypatch.setitem(sys.modules, "actipy", None)
        assert "need the package actipy: pip install 'seqssl[wearables]'" in refused(tmp_path)
        with pytest.raises(UserError, match=r"1 x files of devices .* need the package actipy"):
            prepared(tmp_path, beside(tmp_path))

    def test_without_java(self, tmp_path, monkeypatch):
        def read_device(path, **_):
            raise FileNotFoundError(2, "No such file or directory", "java")

        (tmp_path / "p1.bin").write_bytes(b"x")
        fake_actipy(monkeypatch, read_device)
        assert "need Java 8 or later, and no java is on the PATH" in refused(tmp_path)

    def test_without_java_as_actipy_itself_says_it(self, tmp_path, monkeypatch):
        pytest.importorskip("actipy")
        monkeypatch.setenv("PATH", str(tmp_path))
        (tmp_path / "p1.cwa").write_bytes(b"MD" + bytes(1022))
        assert "need Java 8 or later, and no java is on the PATH" in refused(tmp_path / "p1.cwa")

    @pytest.mark.parametrize("error", [RuntimeError("x"), subprocess.CalledProcessError(1, ["java"])])
    def test_a_damaged_file(self, tmp_path, monkeypatch, error):
        def read_device(path, **_):
            raise error

        (tmp_path / "p1.cwa").write_bytes(b"x")
        fake_actipy(monkeypatch, read_device)
        assert refused(tmp_path) == f"actipy cannot read it: {error}"

    def test_an_empty_recording(self, tmp_path, monkeypatch):
        (tmp_path / "p1.cwa").write_bytes(b"x")
        fake_actipy(monkeypatch, lambda path, **_: (with_actipy(truth(clock()))[:0], {}))
        assert refused(tmp_path) == "actipy found no samples in it"

    @pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
    def test_a_real_file(self, tmp_path):
        pytest.importorskip("actipy")
        path = tmp_path / "p1.bin"
        path.write_text(geneactiv(truth(clock(42))), encoding="ascii")
        rows = read(path)
        assert rows.rows[0]["start"] == f"{START}.000"
        assert rows.quality["device"]["Device"] == "GENEActiv"
        assert_true(values(rows), atol=0.01)  # 12 bits


def geneactiv(samples: np.ndarray, rate_hz: float = 50.0) -> str:
    """A GENEActiv file as actipy reads it: 59 header lines, pages of 300 samples in hexadecimal."""
    head = ["Device Identity", "Device Unique Serial Code:012345", *[""] * 45]
    for axis in "xyz":
        head += [f"{axis} gain:25600", f"{axis} offset:0"]
    head += ["Volts:300", "Lux:800", "", "Memory Status", f"Number of Pages:{len(samples) // 300}"]
    lines = head + [""] * (59 - len(head))
    counts = np.round(samples * 256).astype(int)
    for first in range(0, len(samples) - 299, 300):
        time = pd.Timestamp(START) + pd.Timedelta(seconds=first / rate_hz)
        stamp = f"{time:%Y-%m-%d %H:%M:%S}:{time.microsecond // 1000:03d}"
        digits = "".join(
            "".join(f"{v & 0xFFF:03x}" for v in [*row, 0]) for row in counts[first : first + 300]
        )
        lines += ["Recorded Data", "Device Unique Serial Code:012345", f"Sequence Number:{first // 300}"]
        lines += [f"Page Time:{stamp}", "Unassigned:", "Temperature:30.0", "Battery voltage:4.1"]
        lines += ["Device Status:Recording", f"Measurement Frequency:{rate_hz}", digits]
    return "\n".join(lines) + "\n"


class TestLongGaps:
    @pytest.mark.parametrize("gap_s", [3601.237, 7200.0, 40_000.51])
    @pytest.mark.parametrize("window_s", [30.0, 7.1])
    def test_rows_and_report_are_those_of_the_whole_span(self, gap_s, window_s, tmp_path, monkeypatch):
        times = clock(200.0)
        times[times > 70] += gap_s
        times[times > 150 + gap_s] += 2 * gap_s
        path = write(tmp_path / "a.csv", frame(times, truth(times)))
        settings = {"window_s": window_s, "min_window_s": 5.0, "min_observed": 0.2, "nonwear_minutes": 20.0}
        short = read(path, **settings)
        monkeypatch.setattr(
            "modalities.wearables.windows.Windowing._shortened",
            lambda _, times: (times, np.zeros(len(times), dtype=np.int64)),
        )
        whole = read(path, **settings)
        assert short.quality == whole.quality
        assert [row["part"] for row in short.rows] == [row["part"] for row in whole.rows]
        for one, other in zip(short.rows, whole.rows, strict=True):
            assert (one["start_s"], one["length"]) == (other["start_s"], other["length"])
            np.testing.assert_array_equal(np.isfinite(one["values"]), np.isfinite(other["values"]))
            np.testing.assert_allclose(one["values"], other["values"], atol=1e-5)

    def test_a_month_of_nothing_takes_no_time(self, tmp_path, monkeypatch):
        sizes = []
        resample = signals.resample

        def counted(times, values, clock, rate_hz, num_steps):
            sizes.append(num_steps)
            return resample(times, values, clock, rate_hz, num_steps)

        monkeypatch.setattr(signals, "resample", counted)
        times = clock(120.0)
        times[times > 60] += 30 * 86_400
        rows = read(write(tmp_path / "a.csv", frame(times, truth(times))))
        assert max(sizes) < 30 * 6000
        assert rows.quality["gaps"] == 1 and rows.quality["windows"]["little_observed"] > 86_000
        assert rows.rows[-1]["start_s"] > 30 * 86_400


class TestHostileInput:
    def test_an_array_that_claims_more_than_the_file_holds(self, tmp_path):
        header = io.BytesIO()
        claims = {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3)}
        np.lib.format.write_array_header_1_0(header, claims)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("X.npy", header.getvalue() + bytes(120))
        (tmp_path / "b.npy").write_bytes(header.getvalue() + bytes(120))
        for name in ("a.npz", "b.npy"):
            reason = refused(tmp_path / name, source_rate_hz=50.0)
            assert "12,000,000,000,000 bytes" in reason and "it holds 120" in reason

    def test_what_does_not_fit_into_memory(self, tmp_path, monkeypatch):
        def full(*_: object, **__: object) -> None:
            raise MemoryError

        np.savez(tmp_path / "a.npz", X=np.zeros((9, 3), np.float32))
        monkeypatch.setattr("modalities.wearables.arrays._read_npy", full)
        assert "does not fit into memory" in refused(tmp_path / "a.npz", source_rate_hz=50.0)

    def test_a_group_column_of_measurements(self, tmp_path):
        path = write(tmp_path / "a.csv", frame())
        reason = refused(path, group_column="x")
        assert "column x has 2,000 different values, more than 1,000 subjects" in reason

    def test_subjects_in_turns_are_told_apart(self, tmp_path):
        table = pd.concat([frame().assign(pid=name) for name in ("ben", "anna")])
        path = write(tmp_path / "a.csv", table.sort_values("time", kind="stable"))
        records = found(path)
        assert [record.group for record in records] == ["anna", "ben"]
        for record in records:
            assert_true(values(record.read()))

    def test_times_in_whole_seconds_name_the_remedy(self, tmp_path):
        path = write(tmp_path / "a.csv", frame(np.floor(clock()), truth(clock())))
        assert "modality.time_column=null modality.source_rate_hz=50" in refused(path)
        assert_true(values(read(path, time_column=None, source_rate_hz=50.0)))

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"clip_g": 0.0}, "modality.clip_g=0.0 must lie in (0, 1000]"),
            ({"clip_g": -1.0}, "modality.clip_g=-1.0 must"),
            ({"rate_hz": 0.01}, "modality.rate_hz=0.01 must lie in [1, 1000]"),
            ({"rate_hz": 1e9}, "modality.rate_hz=1000000000.0 must"),
            ({"window_s": 0.01, "min_window_s": 0.01}, "modality.min_window_s=0.01"),
            ({"window_s": math.inf}, "window_s=inf"),
            ({"source_rate_hz": 0.0}, "modality.source_rate_hz=0.0 must lie in [1, 5000]"),
            ({"source_rate_hz": -50.0}, "modality.source_rate_hz=-50.0 must"),
            (
                {"accelerometer_columns": ("x", "y", "Y")},
                "modality.accelerometer_columns=['x', 'y', 'Y'] must",
            ),
            ({"gyroscope_columns": ("a", "b")}, "modality.gyroscope_columns=['a', 'b'] must name 3"),
            (
                {"accelerometer_columns": ("x", "y", "z"), "gyroscope_columns": ("z", "y", "x")},
                "modality.gyroscope_columns=('z', 'y', 'x') must be other columns than accelerometer_columns",
            ),
        ],
    )
    def test_impossible_settings_name_key_value_and_range(self, settings, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            Wearables(**settings)
