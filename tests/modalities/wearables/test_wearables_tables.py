import numpy as np
import pandas as pd
import pytest
from wearables_files import START, assert_true, clock, found, frame, read, refused, truth, values, write

from seqssl import Rejected


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

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_names_that_look_like_nothing_are_names(self, tmp_path, suffix):
        """Of subjects (M and F) and of labels (None is an activity of its own)."""
        names = ["M", "NA", "F", "007", "7"]
        parts = [frame(values=truth(clock(), n)).assign(subject=name) for n, name in enumerate(names)]
        table = pd.concat(parts, ignore_index=True).assign(label="None")
        path = tmp_path / f"all.{suffix}"
        write(path, table) if suffix == "csv" else table.to_parquet(path)
        records = found(path)
        assert [record.group for record in records] == sorted(names)
        for record in records:
            rows = record.read()
            assert {row["label"] for row in rows.rows} == {"None"}
            assert_true(values(rows), seed=names.index(record.group))

    def test_labels_in_numbers_stay_what_they_were(self, tmp_path):
        labels = np.where(clock() < 14, 1.0, np.where(clock() < 35, 2.0, np.nan))
        rows = read(write(tmp_path / "p1.csv", frame().assign(label=labels)))
        assert [row["label"] for row in rows.rows] == ["2", "2"]

    def test_a_file_that_changes_is_read_again(self, tmp_path):
        path = write(tmp_path / "all.csv", frame().assign(subject=1))
        read(path)
        write(path, frame(values=truth(clock(), 5)).assign(subject=1))
        assert_true(values(read(path)), seed=5)

    def test_labels_are_those_of_most_samples_of_a_window(self, tmp_path):
        labels = np.where(clock() < 14, "sit", np.where(clock() < 35, "walk", None))
        rows = read(write(tmp_path / "p1.csv", frame().assign(annotation=labels)))
        assert [row["label"] for row in rows.rows] == ["walk", "walk"]


class TestBadInput:
    def test_texts_among_the_numbers_are_missing(self, tmp_path):
        table = frame(times=clock(20, 30)).astype(object)
        table.loc[100, "x"], table.loc[200, "time"] = "broken", "broken"
        rows = read(write(tmp_path / "p1.csv", table))
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(values(rows)[:, 0])), [100, 200])

    @pytest.mark.parametrize("factor", [1000, 1e6])
    def test_a_wrong_unit_of_time(self, tmp_path, factor):
        path = write(tmp_path / "p1.csv", frame().assign(time=clock() * factor))
        assert "is modality.time_unit right" in refused(path, time_unit="s")
        np.testing.assert_allclose(values(read(path)), truth(np.arange(1200) / 30), atol=2e-3)

    def test_a_csv_without_a_header(self, tmp_path):
        path = write(tmp_path / "p1.csv", header=False)
        assert "Name the columns, for example modality.csv_columns=[time,x,y,z]" in refused(path)
        assert_true(values(read(path, csv_columns=("time", "x", "y", "z"))))
        assert "4 columns where modality.csv_columns names 2" in refused(path, csv_columns=("x", "y"))

    def test_a_csv_without_the_columns(self, tmp_path):
        path = write(tmp_path / "p1.csv", frame().rename(columns={"z": "height"}))
        reason = refused(path)
        assert "among time, x, y, height: set modality.accelerometer_columns=[X,Y,Z]" in reason
        assert "gyroscope" in refused(write(path), gyroscope=True)

    def test_a_header_and_nothing_else(self, tmp_path):
        assert refused(write(tmp_path / "p1.csv", frame()[:0])) == "it has a header and no samples"
        assert "fewer than two" in refused(write(tmp_path / "p1.csv", frame()[:1]))
        (tmp_path / "p2.csv").write_text("\n")
        assert refused(tmp_path / "p2.csv") == "the file is empty"


class TestHostileInput:
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
