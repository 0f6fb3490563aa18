import numpy as np
import pandas as pd
import pytest
from weather_files import HOUR, Rest, frame, read_alone, sensor, write

from seqssl import UserError
from seqssl.data.prepare import prepare


class TestGoodInput:
    @pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.csv.gz", "x.parquet"])
    def test_wide_tables(self, tmp_path, name):
        table = frame()
        write(tmp_path / name, table, **({"sep": "\t"} if "tsv" in name else {}))
        rest = read_alone(tmp_path / name)
        assert not rest.reasons
        sample = rest.sample
        np.testing.assert_allclose(sample.values, table[["a", "b"]].to_numpy(), rtol=1e-6)
        assert sample.observed.all()
        np.testing.assert_array_equal(sample.times, 1577836800 + HOUR * np.arange(100))
        assert (sample.label, sample.group) == ("DJF", "x")

    def test_semicolons_and_decimal_commas(self, tmp_path):
        write(tmp_path / "x.csv", frame(), sep=";", decimal=",")
        np.testing.assert_allclose(
            read_alone(tmp_path / "x.csv").sample.values[:, 0], frame()["a"], rtol=1e-6
        )

    def test_the_order_of_columns_is_that_of_the_setting(self, tmp_path):
        write(tmp_path / "x.csv", frame())
        swapped = read_alone(tmp_path / "x.csv", columns=("b", "a"))
        np.testing.assert_allclose(swapped.sample.values, frame()[["b", "a"]].to_numpy(), rtol=1e-6)

    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_long_tables_give_what_wide_ones_give(self, tmp_path, suffix):
        wide = frame()
        wide.loc[10:20, "b"] = np.nan
        rng = np.random.default_rng(0)
        for name, seed in (("007", 1), ("12", 2)):
            write(tmp_path / "wide" / f"{name}.csv", frame(seed=seed).assign(b=wide["b"]))
        long = pd.concat(
            frame(seed=seed).assign(b=wide["b"], station=name).melt(["time", "station"], var_name="what")
            for name, seed in (("007", 1), ("12", 2))
        )
        long = pd.concat([long, long.iloc[:5].assign(what="other")]).iloc[rng.permutation(len(long) + 5)]
        write(tmp_path / "long" / f"x.{suffix}", long)
        one = Rest(sensor(), tmp_path / "wide")
        two = Rest(sensor(variable_column="what", id_column="station"), tmp_path / "long")
        assert [row["group"] for row in two.rows.values()] == ["007", "12"]
        for ours, theirs in zip(one.samples.values(), two.samples.values(), strict=True):
            np.testing.assert_array_equal(ours.values, theirs.values)
            np.testing.assert_array_equal(ours.observed, theirs.observed)
            np.testing.assert_array_equal(ours.times, theirs.times)
        assert two.quality[f"x.{suffix}/007"]["other_variables"] == {"other": 5}

    def test_wide_tables_with_ids_are_series_of_their_own(self, tmp_path):
        both = pd.concat([frame(seed=1).assign(id="s1"), frame(60, seed=2).assign(id="s2")])
        write(tmp_path / "x.csv", both.sort_values("time", kind="stable"))
        rest = Rest(sensor(id_column="id"), tmp_path / "x.csv")
        assert [(row["group"], row["length"]) for row in rest.rows.values()] == [("s1", 100), ("s2", 60)]
        second = rest.samples["x.csv/s2#2020-01-01T00:00:00"]
        np.testing.assert_allclose(second.values[:, 0], frame(60, seed=2)["a"], rtol=1e-6)


class TestBadCells:
    def test_text_among_numbers_is_missing_and_counted(self, tmp_path):
        table = frame().astype({"a": object})
        table.loc[[5, 6], "a"] = "calm"
        write(tmp_path / "x.csv", table)
        rest = read_alone(tmp_path / "x.csv")
        assert np.flatnonzero(~rest.sample.observed[:, 0]).tolist() == [5, 6]
        assert rest.quality["x.csv"]["text_cells"] == {"a": 2}
        write(tmp_path / "x.csv", table.assign(a="calm"))
        assert (
            read_alone(tmp_path / "x.csv")
            .reasons["x.csv"]
            .startswith("column 'a' holds text in 100 of 100 cells, for example 'calm'")
        )


class TestTimes:
    def test_times_of_parquet(self, tmp_path):
        table = frame()
        write(tmp_path / "1" / "x.parquet", table.rename(columns={"time": "when"}))
        aware = table.assign(time=table["time"].dt.tz_localize("Europe/Berlin"))
        write(tmp_path / "2" / "x.parquet", aware)
        first = read_alone(tmp_path / "1" / "x.parquet")
        assert first.sample.times[0] == 1577836800  # the only column that holds dates
        second = read_alone(tmp_path / "2" / "x.parquet")
        assert second.sample.times[0] == 1577836800 - HOUR
        assert [row["utc_offset_s"] for row in second.rows.values()] == [HOUR]


class TestBadSources:
    def test_an_unknown_variable_of_a_long_table(self, tmp_path):
        write(tmp_path / "x.csv", frame().melt("time", var_name="what"))
        with pytest.raises(UserError, match=r"no column rain; its numeric columns \(or variables\) are a, b"):
            Rest(sensor(columns=("a", "rain"), variable_column="what"), tmp_path / "x.csv")

    @pytest.mark.parametrize(
        "settings, key",
        [({"time_column": "t"}, "time"), ({"id_column": "t"}, "id"), ({"variable_column": "t"}, "variable")],
    )
    def test_a_missing_column_names_the_key(self, tmp_path, settings, key):
        path = write(tmp_path / "x.csv", frame())
        message = rf"there is no {key} column 't' among time, a, b: set modality.{key}_column"
        with pytest.raises(UserError, match=message):
            prepare(sensor(**settings), path, tmp_path / "out", modality="weather", num_workers=1)

    def test_ids_that_are_all_empty(self, tmp_path):
        write(tmp_path / "x.csv", frame().assign(id=""))
        reasons = Rest(sensor(id_column="id"), tmp_path).reasons
        assert reasons == {"x.csv": "column 'id' is empty: set modality.id_column"}

    def test_a_table_without_times(self, tmp_path):
        write(tmp_path / "x.csv", frame().drop(columns="time"))
        reasons = Rest(sensor(), tmp_path).reasons
        assert reasons["x.csv"].startswith("there is no time column among a, b: set modality.time_column")


class TestRowsWithoutTimes:
    def test_are_counted_where_the_user_says_so(self, tmp_path):
        for name in ("gt_2011", "gt_2012"):
            write(tmp_path / f"{name}.csv", frame().drop(columns="time").assign(c=7))
        rest = Rest(sensor(columns=("a", "b", "c"), time_column=None, freq="10min"), tmp_path)
        assert not rest.reasons and {row["group"] for row in rest.rows.values()} == {"gt_2011", "gt_2012"}
        sample = next(iter(rest.samples.values()))
        np.testing.assert_array_equal(sample.times, 600.0 * np.arange(100))
        np.testing.assert_allclose(sample.values[:, 0], frame()["a"], rtol=1e-6)
        assert sample.label == "" and rest.quality["gt_2011.csv"]["constant"] == ["c"]
        refused = Rest(sensor(), tmp_path).reasons["gt_2011.csv"]
        assert "set modality.time_column (null: rows are counted)" in refused

    def test_no_header_either(self, tmp_path):
        path = tmp_path / "exchange_rate.txt"
        frame().drop(columns="time").to_csv(path, index=False, header=False)
        (record, _) = sensor(time_column=None, csv_columns=("a", "b")).records(path, "all")
        assert "rows are counted, one every 1h" in record.read().readings

    def test_several_series_want_a_word(self, tmp_path):
        both = pd.concat([frame(seed=n).assign(station=f"s{n}") for n in range(2)]).drop(columns="time")
        path = write(tmp_path / "x.csv", both)
        reason = Rest(sensor(time_column=None), path).reasons["x.csv"]
        assert reason.endswith("set modality.id_column=station, or modality.id_column=none")
        rest = Rest(sensor(time_column=None, id_column="station"), path)
        assert [(row["group"], row["length"]) for row in rest.rows.values()] == [("s0", 100), ("s1", 100)]
        assert len(Rest(sensor(time_column=None, id_column="none"), path).rows) == 2  # train and valid
        with pytest.raises(ValueError, match=r"modality\.time_column=null counts rows"):
            sensor(time_column=None, variable_column="station")

    def test_rows_that_are_series(self, tmp_path):
        """M4: a name, then as many numbers as the longest series has."""
        rng = np.random.default_rng(0)
        table = pd.DataFrame(rng.random((20, 80)), columns=[f"V{n}" for n in range(2, 82)])
        path = write(tmp_path / "Hourly-train.csv", table.assign(V1=[f"H{n}" for n in range(20)]))
        reason = Rest(sensor(columns=("V2",)), path).reasons[path.name]
        assert reason.startswith(
            "80 columns of numbers and no time: each row seems to be a series: transpose"
        )
