import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modalities.weather import Weather
from modalities.weather.clock import season, stamp, to_seconds
from modalities.weather.series import Grid, pieces, segments, to_grid
from modalities.weather.variables import clean
from seqssl import Record, Rejected, UserError
from seqssl.data.prepare import prepare
from seqssl.data.shards import Corpus
from seqssl.testing import adapter_checks

COLUMNS = ("a", "b")
HOUR = 3600.0
TMY3_FILE, TMY3_ALASKA, TMY2_FILE = "723170TYA.CSV", "703165TY.csv", "12839.tm2"


def sensor(**settings) -> Weather:
    return Weather(**{"columns": COLUMNS, **settings})


def frame(n=100, start="2020-01-01", freq="1h", seed=0) -> pd.DataFrame:
    """`time` and two channels that never repeat a value."""
    rng = np.random.default_rng(seed)
    times = pd.date_range(start, periods=n, freq=freq)
    return pd.DataFrame({"time": times, "a": np.cumsum(rng.random(n) + 0.1), "b": rng.normal(size=n)})


def write(path: Path, table: pd.DataFrame, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, **options)
    return path


class Rest:
    """What an adapter makes of a source: rows by key, reasons by path, quality by key."""

    def __init__(self, adapter: Weather, source: Path) -> None:
        self.rows, self.reasons, self.quality, self.splits = {}, {}, {}, {}
        for found in adapter.records(source, "all"):
            if isinstance(found, Rejected):
                self.reasons[found.path] = found.reason
                continue
            try:
                read = found.read()
            except ValueError as error:
                self.reasons[found.key] = str(error)
                continue
            self.quality[found.key] = json.loads(json.dumps(read.quality))
            for row in read.rows:
                key = f"{found.key}#{row['part']}"
                assert key not in self.rows
                self.rows[key] = {"group": found.group, **row}
                self.splits[key] = found.split
        self.samples = {key: adapter.load(row, None) for key, row in self.rows.items()}

    @property
    def sample(self):
        (sample,) = self.samples.values()
        return sample


def read_alone(path: Path, **settings) -> Rest:
    """One series, not cut for a held-out part: a second series stands beside it, and is left out here."""
    beside = write(path.parent / "zzz.csv", frame(30, seed=9))
    rest = Rest(sensor(**settings), path.parent)
    beside.unlink()
    for things in (rest.rows, rest.samples, rest.quality, rest.reasons, rest.splits):
        for key in [key for key in things if key.startswith("zzz")]:
            del things[key]
    return rest


@pytest.fixture
def folder(tmp_path) -> Path:
    for number, name in enumerate(("east", "west")):
        table = frame(120, seed=number)
        table.loc[40:45, "a"] = np.nan
        write(tmp_path / "raw" / f"{name}.csv", table.drop(index=range(70, 100)))
    return tmp_path / "raw"


SETTINGS = {
    "mix": {},
    "independent": {"channel_mode": "independent", "calendar": True, "shift_steps": 5, "segment_steps": 30},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("name, check", adapter_checks())
def test_keeps_the_adapter_contract(name, check, settings, folder):
    check(sensor(patch=4, **settings), folder)


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

    def test_files_of_a_folder_share_its_group(self, tmp_path):
        for name in ("oslo/2019.csv", "oslo/2020.csv", "rome/2020.csv"):
            write(tmp_path / name, frame())
        rest = Rest(sensor(), tmp_path)
        assert [row["group"] for row in rest.rows.values()] == ["oslo", "oslo", "rome"]

    def test_end_to_end(self, folder, tmp_path):
        (folder / "empty.csv").touch()
        manifest = prepare(sensor(), folder, tmp_path / "out", modality="weather", num_workers=1)
        corpus = Corpus(tmp_path / "out")
        rest = Rest(sensor(), folder)
        assert [row["key"] for row in map(corpus.row, range(len(corpus)))] == [*rest.rows]
        for number in range(len(corpus)):
            row = corpus.row(number)
            ours, direct = sensor().load(row, None), rest.samples[row["key"]]
            np.testing.assert_array_equal(ours.values, direct.values)
            np.testing.assert_array_equal(ours.observed, direct.observed)
        assert manifest.num_rejected == 1
        assert manifest.splits.keys() == {"train", "valid"}
        quality = (tmp_path / "out" / "quality.jsonl").read_text().splitlines()
        assert [json.loads(line)["path"] for line in quality] == ["east.csv", "west.csv"]

    def test_statistics_are_those_of_what_is_observed_in_train(self, folder, tmp_path):
        manifest = prepare(sensor(min_steps=9), folder, tmp_path / "out", modality="weather", num_workers=1)
        corpus = Corpus(tmp_path / "out")
        train = {corpus.row(int(number))["group"] for number in corpus.rows("train")}
        table = pd.concat(pd.read_csv(folder / f"{name}.csv") for name in train)
        np.testing.assert_allclose(manifest.statistics["mean"], table[["a", "b"]].mean(), rtol=1e-5)
        np.testing.assert_allclose(manifest.statistics["std"], table[["a", "b"]].std(ddof=0), rtol=1e-5)


class TestHeldOut:
    def test_the_end_of_a_lone_series(self, tmp_path):
        path = write(tmp_path / "x.csv", frame(200))
        rest = Rest(sensor(), path)
        assert {key.partition("#")[0]: row["length"] for key, row in rest.rows.items()} == {
            "x.csv": 160,
            "x.csv/valid": 40,
        }
        assert [*rest.splits.values()] == ["train", "valid"]
        joined = np.concatenate([sample.values for sample in rest.samples.values()])
        np.testing.assert_allclose(joined[:, 0], frame(200)["a"], rtol=1e-6)
        only = [record.key for record in sensor().records(path, "valid") if isinstance(record, Record)]
        assert only == ["x.csv/valid"]

    def test_a_date_cuts_every_series(self, tmp_path):
        for number in range(2):
            write(tmp_path / f"{number}.csv", frame(100 + number))
        rest = Rest(sensor(valid_from="2020-01-03 01:00"), tmp_path)
        assert [(row["length"], rest.splits[key]) for key, row in rest.rows.items()] == [
            (49, "train"), (51, "valid"), (49, "train"), (52, "valid"),
        ]  # fmt: skip
        late = Rest(sensor(valid_from="2021-01-01"), tmp_path)
        assert late.reasons["0.csv/valid"] == "no values from 2021-01-01T00:00:00 (UTC)"
        shares = Rest(sensor(valid_from="60%"), tmp_path)
        assert [row["length"] for row in shares.rows.values()] == [60, 40, 60, 41]


class TestGaps:
    def test_a_short_one_is_missing_and_a_long_one_splits(self, tmp_path):
        table = frame(200).drop(index=[*range(30, 34), *range(100, 130)])
        write(tmp_path / "x.csv", table)
        rest = read_alone(tmp_path / "x.csv", max_gap_steps=4)
        assert [row["length"] for row in rest.rows.values()] == [100, 70]
        first = next(iter(rest.samples.values()))
        missing = ~first.observed.any(axis=1)
        assert np.flatnonzero(missing).tolist() == [30, 31, 32, 33]
        assert (first.values[missing] == 0).all()
        split = read_alone(tmp_path / "x.csv", max_gap_steps=3)
        assert [row["length"] for row in split.rows.values()] == [30, 66, 70]
        assert split.quality["x.csv"]["num_segments"] == 3

    def test_rows_without_values_are_a_gap_like_rows_that_are_not_there(self, tmp_path):
        table = frame(200)
        write(tmp_path / "1" / "x.csv", table.drop(index=range(50, 90)))
        table.loc[50:89, ["a", "b"]] = np.nan
        write(tmp_path / "2" / "x.csv", table)
        one, two = (read_alone(tmp_path / name / "x.csv", max_gap_steps=10) for name in "12")
        assert [*one.rows] == [*two.rows]

    def test_one_channel_may_be_missing(self, tmp_path):
        table = frame(100)
        table.loc[10:80, "b"] = np.nan
        write(tmp_path / "x.csv", table)
        sample = read_alone(tmp_path / "x.csv").sample
        np.testing.assert_array_equal(sample.observed, table[["a", "b"]].notna().to_numpy())
        assert (sample.values[~sample.observed] == 0).all()

    def test_long_stretches_are_cut_evenly_and_short_ones_are_counted(self, tmp_path):
        write(tmp_path / "x.csv", frame(250).drop(index=range(205, 240)))
        rest = read_alone(tmp_path / "x.csv", segment_steps=100)
        assert [row["length"] for row in rest.rows.values()] == [69, 68, 68]
        assert rest.quality["x.csv"]["short_steps"] == 10
        assert rest.quality["x.csv"]["num_steps"] == 205

    def test_sparse_stretches_are_left_out_and_counted(self, tmp_path):
        table = frame(240)
        write(tmp_path / "x.csv", pd.concat([table[:120], table[120::3]]))
        rest = read_alone(tmp_path / "x.csv", segment_steps=60)
        assert [row["length"] for row in rest.rows.values()] == [60, 60]
        assert rest.quality["x.csv"]["sparse_steps"] == 118
        assert len(read_alone(tmp_path / "x.csv", segment_steps=60, min_observed=0.3).rows) == 4


class TestTimes:
    def test_any_order(self, tmp_path):
        table = frame()
        write(tmp_path / "1" / "x.csv", table)
        write(tmp_path / "2" / "x.csv", table.sample(frac=1, random_state=0))
        one, two = (read_alone(tmp_path / name / "x.csv") for name in "12")
        np.testing.assert_array_equal(one.sample.values, two.sample.values)
        assert "unordered_times" not in one.quality["x.csv"]
        assert two.quality["x.csv"]["unordered_times"] > 20

    def test_repeated_times_are_averaged_and_counted(self, tmp_path):
        table = frame()
        again = table.iloc[[10, 11]].assign(a=[1e3, np.nan])
        write(tmp_path / "x.csv", pd.concat([table, again]))
        rest = read_alone(tmp_path / "x.csv")
        assert rest.quality["x.csv"]["repeated_times"] == 2
        values = rest.sample.values[:, 0]
        assert values[10] == pytest.approx((table["a"][10] + 1e3) / 2)
        assert values[11] == pytest.approx(table["a"][11])
        assert rest.sample.values[10, 1] == pytest.approx(table["b"][10])

    def test_a_finer_rate_is_averaged_over_the_step_that_ends_at_the_time(self, tmp_path):
        table = frame(6 * 40, start="2020-01-01 00:10", freq="10min")
        write(tmp_path / "x.csv", table)
        sample = read_alone(tmp_path / "x.csv").sample
        expected = table.set_index("time").resample("1h", closed="right", label="right").mean()
        np.testing.assert_allclose(sample.values, expected.to_numpy(), rtol=1e-6)
        np.testing.assert_array_equal(sample.times, expected.index.as_unit("s").astype(np.int64))

    def test_a_coarser_rate_is_refused(self, tmp_path):
        write(tmp_path / "x.csv", frame(freq="3h"))
        assert read_alone(tmp_path / "x.csv").reasons["x.csv"] == (
            "there is one value every 10800 s, modality.freq asks for one every 3600 s: "
            "set modality.freq=10800s"
        )
        assert read_alone(tmp_path / "x.csv", freq="10800s").sample.observed.all()

    def test_mixed_rates_within_a_file_and_between_files(self, tmp_path):
        fine = frame(6 * 30, start="2020-01-01 00:10", freq="10min")
        coarse = frame(30, start="2020-01-02 07:00")
        write(tmp_path / "mixed.csv", pd.concat([fine, coarse]))
        write(tmp_path / "coarse.csv", coarse)
        write(tmp_path / "daily.csv", frame(freq="1D"))
        rest = Rest(sensor(), tmp_path)
        assert [*rest.reasons] == ["daily.csv"]
        mixed, alone = (rest.samples[key] for key in sorted(rest.samples, reverse=True))
        assert mixed.observed.all() and len(mixed.values) == 60
        np.testing.assert_allclose(mixed.values[30:], alone.values, rtol=1e-6)

    def test_channels_of_other_rates_are_observed_where_they_are(self, tmp_path):
        table = frame(120, freq="10min")
        table.loc[table["time"].dt.minute != 0, "b"] = np.nan
        write(tmp_path / "x.csv", table)
        fine = read_alone(tmp_path / "x.csv", freq="10min").sample
        assert fine.observed.mean(axis=0).tolist() == [1, pytest.approx(1 / 6)]
        assert read_alone(tmp_path / "x.csv", min_steps=10).sample.observed[:20].all()

    def test_jitter_keeps_one_value_a_step_and_a_phase_is_kept(self, tmp_path):
        table = frame(start="2020-01-01 00:30")
        jitter = np.random.default_rng(0).integers(-600, 600, len(table))
        write(tmp_path / "x.csv", table.assign(time=table["time"] + pd.to_timedelta(jitter, unit="s")))
        rest = read_alone(tmp_path / "x.csv")
        assert rest.sample.observed.all() and len(rest.sample.values) == 100
        assert abs(rest.sample.times[0] - table["time"][0].timestamp()) < 300

    def test_a_first_value_between_two_steps_does_not_move_the_others(self, tmp_path):
        table = frame()
        jitter = pd.to_timedelta([1800, *(5 * (-1) ** np.arange(99))], unit="s")
        write(tmp_path / "x.csv", table.assign(time=table["time"] + jitter))
        sample = read_alone(tmp_path / "x.csv").sample
        assert len(sample.values) == 100 and sample.observed[1:].all()
        assert np.abs(sample.times[1:] - 1577836800 - HOUR * np.arange(1, 100)).max() <= 5

    def test_leap_days(self, tmp_path):
        write(tmp_path / "x.csv", frame(72, start="2020-02-28"))
        write(tmp_path / "y.csv", frame(72, start="2021-02-28"))
        rest = Rest(sensor(), tmp_path)
        for sample in rest.samples.values():
            assert (np.diff(sample.times) == HOUR).all() and sample.observed.all()

    def test_unreadable_times_are_counted_and_many_are_refused(self, tmp_path):
        table = frame()
        table["time"] = table["time"].astype(str)
        write(tmp_path / "x.csv", table.replace({"time": {table["time"][50]: "soon"}}))
        rest = read_alone(tmp_path / "x.csv")
        assert rest.quality["x.csv"]["unreadable_times"] == 1
        assert np.flatnonzero(~rest.sample.observed.any(axis=1)).tolist() == [50]
        german = table.assign(time=frame()["time"].dt.strftime("%d.%m.%Y %H:%M"))
        write(tmp_path / "x.csv", german)
        reason = read_alone(tmp_path / "x.csv").reasons["x.csv"]
        assert "'01.01.2020 00:00'" in reason and "modality.time_format" in reason
        assert len(read_alone(tmp_path / "x.csv", time_format="%d.%m.%Y %H:%M").sample.values) == 100

    def test_a_date_that_means_never_costs_its_row_only(self, tmp_path):
        table = frame().astype({"time": str})
        write(tmp_path / "x.csv", pd.concat([table, table[:1].assign(time="9999-12-31 23:00:00")]))
        rest = read_alone(tmp_path / "x.csv")
        assert rest.sample.observed.all() and len(rest.sample.values) == 100
        assert rest.quality["x.csv"]["short_steps"] == 1

    def test_times_in_another_unit_are_told(self, tmp_path):
        days = 43831 + np.arange(100) / 24  # as spreadsheets count
        write(tmp_path / "x.csv", frame().assign(time=days))
        reason = read_alone(tmp_path / "x.csv").reasons["x.csv"]
        assert reason.startswith("all values lie within one step of 3600 s")

    @pytest.mark.parametrize(
        "texts, settings, expected",
        [
            (["2020-06-01T02:00:00+02:00"], {}, ["2020-06-01 00:00"]),
            (["2020-06-01T00:00:00Z"], {"timezone": "Asia/Tokyo"}, ["2020-06-01 00:00"]),
            (["2020-06-01 02:00"], {"timezone": "Europe/Berlin"}, ["2020-06-01 00:00"]),
            (["2020-06-01"], {"timezone": "Asia/Tokyo"}, ["2020-05-31 15:00"]),
            (["06/01/20 00h +0200"], {"time_format": "%m/%d/%y %Hh %z"}, ["2020-05-31 22:00"]),
            # Clocks go forward over 02:30 and back over it: neither hour is guessed
            (
                ["2020-03-29 02:30", "2020-03-29 04:00"],
                {"timezone": "Europe/Berlin"},
                [None, "2020-03-29 02:00"],
            ),
            (
                ["2020-10-25 02:30", "2020-10-25 04:00"],
                {"timezone": "Europe/Berlin"},
                [None, "2020-10-25 03:00"],
            ),
        ],
    )
    def test_zones(self, texts, settings, expected):
        options = {"time_format": "", "timezone": "UTC", **settings}
        seconds, _ = to_seconds(pd.Series(texts), **options)
        wanted = [np.nan if text is None else pd.Timestamp(text, tz="UTC").timestamp() for text in expected]
        np.testing.assert_array_equal(seconds, wanted)

    @pytest.mark.parametrize(
        "texts, timezone, hours",
        [
            (["2020-06-01T02:00:00+02:00"], "UTC", 2),
            (["2020-06-01T02:00:00-0930"], "UTC", -9.5),
            (["2020-06-01 02:00"], "Europe/Berlin", 1),  # standard time, in summer too
            (["2020-06-01 02:00"], "UTC", 0),
        ],
    )
    def test_the_offset_of_local_time(self, texts, timezone, hours):
        assert to_seconds(pd.Series(texts), "", timezone)[1] == hours * HOUR

    @given(st.floats(1e8, 9e9), st.sampled_from([1, 1e3, 1e6, 1e9]))
    def test_numbers_are_told_by_their_size(self, seconds, unit):
        found, _ = to_seconds(pd.Series([seconds * unit]), "", "UTC")
        np.testing.assert_allclose(found, [seconds], rtol=1e-9)

    def test_numbers_with_a_format(self):
        found, _ = to_seconds(pd.Series([2020010100, 2020010101]), "%Y%m%d%H", "UTC")
        np.testing.assert_array_equal(found, 1577836800 + HOUR * np.arange(2))

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


class TestBadCells:
    def test_a_constant_sensor_is_not_observed(self, tmp_path):
        write(tmp_path / "x.csv", frame().assign(b=21.5))
        rest = read_alone(tmp_path / "x.csv")
        assert rest.quality["x.csv"]["constant"] == ["b"]
        assert rest.sample.observed.all(axis=0).tolist() == [True, False]
        assert (rest.sample.values[:, 1] == 0).all()
        fine = (
            frame(700, freq="10min").sample(500, random_state=0).assign(b=21.3)
        )  # some means of 6, some of 2
        write(tmp_path / "x.csv", fine)
        assert read_alone(tmp_path / "x.csv").quality["x.csv"]["constant"] == ["b"]
        write(tmp_path / "x.csv", frame().assign(a=0, b=21.5))
        assert read_alone(tmp_path / "x.csv").reasons["x.csv"].startswith("no channel ever changes")

    def test_a_constant_stretch_of_a_sensor_that_changes_is_kept(self, tmp_path):
        write(tmp_path / "x.csv", frame().assign(b=[0.0] * 90 + [1.0] * 10))
        assert (
            read_alone(tmp_path / "x.csv", segment_steps=50)
            .samples["x.csv#2020-01-01T00:00:00"]
            .observed.all()
        )

    def test_sentinels(self, tmp_path):
        table = frame()
        table.loc[3, "a"], table.loc[5, "b"], table.loc[7, "b"] = -9999, 9999, np.inf
        write(tmp_path / "x.csv", table)
        rest = read_alone(tmp_path / "x.csv")
        assert np.argwhere(~rest.sample.observed).tolist() == [[3, 0], [5, 1], [7, 1]]
        assert rest.quality["x.csv"]["missing_values"] == {"a": 1, "b": 1}
        kept = read_alone(tmp_path / "x.csv", missing_values=("-1",))
        assert kept.sample.values[5, 1] == 9999

    def test_impossible_values_of_a_known_variable(self, tmp_path):
        table = frame(100).rename(columns={"a": "temp_air"}).assign(temp_air=np.linspace(-5, 5, 100))
        table.loc[4, "temp_air"] = 99.9
        write(tmp_path / "x.csv", table)
        columns = ("temp_air", "b")
        rest = read_alone(tmp_path / "x.csv", columns=columns)
        assert rest.quality["x.csv"]["outside_limits"] == {"temp_air": 1}
        assert np.argwhere(~rest.sample.observed).tolist() == [[4, 0]]
        assert read_alone(tmp_path / "x.csv", columns=columns, limits=False).sample.observed.all()
        write(tmp_path / "x.csv", table.assign(temp_air=table["temp_air"] + 273.15))
        reason = read_alone(tmp_path / "x.csv", columns=columns).reasons["x.csv"]
        assert reason.startswith(
            "temp_air is outside [-95, 60] degC in 100 of 100 values, for example 268.15"
        )

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

    def test_a_column_that_some_files_lack_is_missing_there(self, tmp_path):
        write(tmp_path / "x.csv", frame().drop(columns="b"))
        write(tmp_path / "y.csv", frame())
        write(tmp_path / "z.csv", frame().rename(columns={"a": "c", "b": "d"}))
        rest = Rest(sensor(), tmp_path)
        assert rest.quality["x.csv"]["absent"] == ["b"]
        assert rest.samples["x.csv#2020-01-01T00:00:00"].observed.mean(axis=0).tolist() == [1, 0]
        assert rest.reasons == {"z.csv": "it has none of the chosen columns; it has c, d"}


class TestBadSources:
    def test_a_column_that_all_files_lack_is_told_with_what_there_is(self, tmp_path):
        write(tmp_path / "x.csv", frame().assign(name="text"))
        with pytest.raises(
            UserError, match=r"no column c; its numeric .* are a, b: .*modality.columns=\[a,b\]"
        ):
            Rest(sensor(columns=("a", "c")), tmp_path / "x.csv")
        with pytest.raises(UserError, match=r"no column temp_air, .*, total_sky_cover; its"):
            Rest(Weather(), tmp_path)

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
        assert reasons == {"x.csv": "there is no time column among a, b: set modality.time_column"}

    def test_each_gets_its_reason(self, tmp_path):
        write(tmp_path / "good.csv", frame())
        write(tmp_path / "short.csv", frame(5))
        write(tmp_path / "rows.csv", frame(0))
        for name in ("empty.csv", "empty.parquet", "empty.nc", "empty.ts", "empty.epw"):
            (tmp_path / name).touch()
        (tmp_path / "blank.csv").write_text("\n\n")
        (tmp_path / "ragged.csv").write_text("time,a,b\n2020-01-01,1,2\n2020-01-02,1,2,3,4\n")
        (tmp_path / "longer.csv").write_text("time,a,b\n2020-01-01,1,2,3\n2020-01-02,1,2,3\n")
        for name in ("junk.parquet", "junk.nc", "junk.csv.gz", "junk.tm2", "junk.epw", "junk.ts"):
            (tmp_path / name).write_bytes(b"no such file\n" * 3)
        (tmp_path / "notes.txt").write_text("not looked at")
        rest = Rest(sensor(), tmp_path)
        assert {key.partition("#")[0] for key in rest.rows} == {"good.csv"}
        beginnings = {
            "blank.csv": "the file is empty",
            "junk.csv.gz": "not readable as a table: ",
            "junk.epw": "the first line names no station",
            "junk.nc": "not readable as nc: ",
            "junk.parquet": "not readable as a table: ",
            "junk.tm2": "the first line names no station",
            "junk.ts": "there is no line @data",
            "longer.csv": "not readable as a table: ",
            "ragged.csv": "not readable as a table: ",
            "rows.csv": "the table has no rows",
            "short.csv": "no stretch of 24 steps with 50% of them observed: 5 steps are in shorter ones",
            **{f"empty.{suffix}": "the file is empty" for suffix in ("csv", "parquet", "nc", "ts", "epw")},
        }
        assert rest.reasons.keys() == beginnings.keys()
        for name, beginning in beginnings.items():
            assert rest.reasons[name].startswith(beginning), rest.reasons[name]
            assert "\n" not in rest.reasons[name]

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"freq": "often"}, "no duration"),
            ({"freq": "0s"}, "longer than nothing"),
            ({"timezone": "Mars/Olympus"}, "timezone"),
            ({"valid_from": "soon"}, "no date"),
            ({"valid_from": "100%"}, "no date"),
            ({"columns": ()}, "columns"),
            ({"columns": ("a", "a")}, "columns"),
            ({"min_steps": 50, "segment_steps": 40}, "min_steps"),
            ({"min_observed": 1.5}, "min_observed"),
            ({"patch": 0}, r"modality.patch=0 must lie in \[1, 1000\]"),
            ({"patch": 1001}, "modality.patch=1001 must"),
            ({"shift_steps": -1}, r"modality.shift_steps=-1 must lie in \[0, 10000\]"),
            ({"shift_steps": 10**9}, "modality.shift_steps=1000000000 must"),
            ({"missing_values": ("nothing",)}, "missing_values"),
        ],
    )
    def test_impossible_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            sensor(**settings)

    @pytest.mark.parametrize("name, package", [("x.nc", "xarray"), ("x.epw", "pvlib.iotools")])
    def test_missing_packages_name_the_extra(self, tmp_path, monkeypatch, name, package):
        (tmp_path / name).write_text("LOCATION,Town,ST,USA\n")
        monkeypatch.setitem(sys.modules, package, None)
        assert "pip install 'seqssl[weather]'" in Rest(Weather(), tmp_path).reasons[name]


class TestSamples:
    def test_independent_channels_are_rows_of_their_own(self, folder):
        mixed = Rest(sensor(), folder)
        apart = Rest(sensor(channel_mode="independent"), folder)
        assert [*apart.rows] == [f"{key}/{name}" for key in mixed.rows for name in COLUMNS]
        for key, sample in mixed.samples.items():
            for place, name in enumerate(COLUMNS):
                alone = apart.samples[f"{key}/{name}"]
                np.testing.assert_array_equal(alone.values, sample.values[:, [place]])
                np.testing.assert_array_equal(alone.observed, sample.observed[:, [place]])

    def test_independent_channels_that_are_not_observed_make_no_row(self, tmp_path):
        write(tmp_path / "x.csv", frame().assign(b=1))
        rest = read_alone(tmp_path / "x.csv", channel_mode="independent")
        assert [*rest.rows] == ["x.csv#2020-01-01T00:00:00/a"]

    def test_the_calendar_is_local_and_silent_in_gaps(self, tmp_path):
        table = frame(120, start="2020-06-01").drop(index=range(50, 60))
        write(tmp_path / "x.csv", table)
        rest = read_alone(tmp_path / "x.csv", calendar=True, timezone="Asia/Tokyo")
        sample = rest.sample
        assert sensor(calendar=True).spec.channel_names[2:] == (
            "hour_sin",
            "hour_cos",
            "year_sin",
            "year_cos",
        )
        np.testing.assert_allclose(sample.values[0, 2:4], [0, 1], atol=1e-6)  # midnight in Tokyo
        np.testing.assert_allclose(sample.values[6, 2:4], [1, 0], atol=1e-6)
        day_of_year = 2 * np.pi * 152 / 365.2425
        np.testing.assert_allclose(
            sample.values[0, 4:], [np.sin(day_of_year), np.cos(day_of_year)], atol=0.02
        )
        np.testing.assert_array_equal(sample.observed[:, 2:].all(axis=1), sample.observed[:, :2].any(axis=1))
        assert (sample.values[~sample.observed] == 0).all()

    def test_shifts_leave_out_first_steps_only(self, folder):
        adapter = sensor(shift_steps=7)
        row = next(iter(Rest(adapter, folder).rows.values()))
        whole = adapter.load(row, None)
        lengths = set()
        for seed in range(40):
            sample = adapter.load(row, np.random.default_rng(seed))
            lengths.add(row["length"] - len(sample.values))
            start = row["length"] - len(sample.values)
            np.testing.assert_array_equal(sample.values, whole.values[start:])
            np.testing.assert_array_equal(sample.times, whole.times[start:])
            np.testing.assert_array_equal(sample.observed, whole.observed[start:])
        assert lengths == {*range(8)}

    @pytest.mark.parametrize("month, name", [(1, "DJF"), (3, "MAM"), (8, "JJA"), (11, "SON"), (12, "DJF")])
    def test_seasons(self, month, name):
        middle = pd.Timestamp(2020, month, 15).timestamp()
        assert season(middle - HOUR, middle + HOUR) == name
        assert season(middle - 1e7, middle + 1e7) == ""

    def test_stamps_tell_milliseconds_only_where_there_are_some(self):
        assert stamp(1577836800.0) == "2020-01-01T00:00:00"
        assert stamp(1577836800.02) == "2020-01-01T00:00:00.020"


class TestTypicalYears:
    """On the files that pvlib ships."""

    @pytest.fixture(scope="class")
    def pvlib_data(self) -> Path:
        return Path(pytest.importorskip("pvlib").__file__).parent / "data"

    def year(self, path: Path, tmp_path: Path, **settings) -> Rest:
        """A file beside a second, shorter series, so that nothing is held out."""
        (tmp_path / path.name).write_bytes(path.read_bytes())
        table = frame(30).rename(columns={"a": "temp_air"})
        return Rest(Weather(**settings), write(tmp_path / "zzz.csv", table).parent)

    @pytest.mark.parametrize(
        "name, station, means",
        [  # annual means as climate tables have them: degC, degC, %, hPa, m/s, W/m2, tenths
            (TMY3_FILE, "GREENSBORO PIEDMONT TRIAD INT NC", [14.4, 8.2, 69.5, 986.9, 3.05, 178.8, 5.57]),
            (TMY3_ALASKA, "SAND POINT AK", [4.4, 0.1, 73.5, 0, 5.07, 94.7, 7.33]),
            (TMY2_FILE, "MIAMI FL", [24.3, 18.8, 72.5, 1017.4, 4.34, 204.6, 5.37]),
        ],
    )
    def test_units_agree(self, pvlib_data, tmp_path, name, station, means):
        rest = self.year(pvlib_data / name, tmp_path)
        keys = [key for key in rest.rows if key.startswith(name)]
        assert len(keys) == 12 and {rest.rows[key]["group"] for key in keys} == {station}
        values = np.concatenate([rest.samples[key].values for key in keys])
        assert values.shape == (8760, 7)
        np.testing.assert_allclose(values.mean(axis=0), means, atol=0.06)
        labels = [rest.rows[key]["label"] for key in keys]
        assert sorted(labels) == sorted(3 * ["DJF", "MAM", "JJA", "SON"])

    @pytest.mark.parametrize(
        "name, latitude, longitude",
        [(TMY3_FILE, 36.1, -79.95), (TMY3_ALASKA, 55.317, -160.517), (TMY2_FILE, 25.8, -80.267)],
    )
    def test_the_sun_is_up_when_there_is_light(self, pvlib_data, tmp_path, name, latitude, longitude):
        """Irradiance is of the hour that ends at the time, in the year that the month comes from."""
        solarposition = import_module("pvlib.solarposition")
        rest = self.year(pvlib_data / name, tmp_path, columns=("ghi", "temp_air"))
        samples = [sample for key, sample in rest.samples.items() if key.startswith(name)]
        times = np.concatenate([sample.times for sample in samples])
        light = np.concatenate([sample.values[:, 0] for sample in samples]) > 0
        middle = pd.to_datetime(times - HOUR / 2, unit="s", utc=True)
        elevation = solarposition.get_solarposition(middle, latitude, longitude)["elevation"].to_numpy()
        clear = np.abs(elevation) > 7.5  # an hour of sunrise or sunset is both day and night
        assert (light == (elevation > 0))[clear].mean() > 0.999
        agreement = []
        for shift in (-1, 0, 1):
            moved = solarposition.get_solarposition(middle + pd.Timedelta(shift, "h"), latitude, longitude)
            agreement.append(float((light == (moved["elevation"].to_numpy() > 0)).mean()))
        assert agreement[1] > max(agreement[0], agreement[2]) + 0.02

    def test_a_dead_sensor_of_a_real_station(self, pvlib_data, tmp_path):
        quality = self.year(pvlib_data / TMY3_ALASKA, tmp_path).quality[TMY3_ALASKA]
        assert quality["constant"] == ["pressure"]
        assert quality["num_segments"] == 11  # March and April are both of 2005

    def test_tmy2_agrees_with_pvlib(self, pvlib_data, tmp_path):
        table, _ = import_module("pvlib.iotools").read_tmy2(pvlib_data / TMY2_FILE)
        tenths = {"temp_air": "DryBulb", "temp_dew": "DewPoint", "wind_speed": "Wspd"}
        same = {
            "relative_humidity": "RHum", "pressure": "Pressure", "wind_direction": "Wdir", "ghi": "GHI",
            "dni": "DNI", "dhi": "DHI", "total_sky_cover": "TotCld", "opaque_sky_cover": "OpqCld",
        }  # fmt: skip
        columns = {name: table[own] / 10 for name, own in tenths.items()}
        columns |= {name: table[own] for name, own in same.items()}
        rest = self.year(pvlib_data / TMY2_FILE, tmp_path, columns=tuple(columns))
        table = pd.DataFrame(columns).set_axis(table["year"].to_numpy()).sort_index(kind="stable")
        samples = [sample for key, sample in rest.samples.items() if key.startswith(TMY2_FILE)]
        ours = pd.DataFrame(np.concatenate([sample.values for sample in samples]))
        theirs = table.reset_index(drop=True)
        # Both are sorted by year; of two months of one year ours keep their order too
        np.testing.assert_allclose(ours, theirs, atol=1e-4)

    def test_a_station_of_two_words(self, pvlib_data, tmp_path):
        text = (pvlib_data / TMY2_FILE).read_text().replace("MIAMI         ", "WEST PALM BEACH"[:14])
        (tmp_path / "x.tm2").write_text(text)
        groups = {row["group"] for row in Rest(Weather(), tmp_path).rows.values()}
        assert groups == {"WEST PALM BEAC FL"}

    def test_epw_agrees_with_tmy3(self, pvlib_data, tmp_path):
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "x.epw").write_text(as_epw(pvlib_data / TMY3_FILE))
        one = self.year(pvlib_data / TMY3_FILE, tmp_path)
        two = Rest(Weather(), tmp_path / "new")
        samples = [sample for key, sample in one.samples.items() if key.startswith(TMY3_FILE)]
        ours = np.concatenate([sample.values for sample in two.samples.values()])
        theirs = np.concatenate([sample.values for sample in samples])
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        times = [
            np.concatenate([sample.times for sample in found]) for found in (two.samples.values(), samples)
        ]
        np.testing.assert_array_equal(*times)

    def test_missing_values_of_epw(self, pvlib_data, tmp_path):
        lines = as_epw(pvlib_data / TMY3_FILE).splitlines()
        cells = lines[20].split(",")
        for place, missing in {
            6: "99.9",
            7: "99.9",
            8: "999",
            9: "999999",
            13: "9999",
            21: "999",
            22: "99",
        }.items():
            cells[place] = missing
        lines[20] = ",".join(cells)
        (tmp_path / "x.epw").write_text("\n".join(lines))
        rest = Rest(Weather(), tmp_path)
        missing = sum(int((~sample.observed).sum()) for sample in rest.samples.values())
        counts = [
            sum(rest.quality["x.epw"].get(kind, {}).values()) for kind in ("outside_limits", "missing_values")
        ]
        assert missing == sum(counts) == 7

    def test_a_channel_that_was_never_measured_is_no_matter_of_units(self, pvlib_data, tmp_path):
        lines = as_epw(pvlib_data / TMY3_FILE).splitlines()
        lines[8:] = [",".join([*line.split(",")[:9], "999999", *line.split(",")[10:]]) for line in lines[8:]]
        (tmp_path / "x.epw").write_text("\n".join(lines))
        rest = Rest(Weather(), tmp_path)
        assert rest.quality["x.epw"]["observed"]["pressure"] == 0
        assert rest.quality["x.epw"]["observed"]["temp_air"] == 1

    def test_leap_days_keep_their_place(self, pvlib_data, tmp_path):
        """pvlib moves 29 February onto 1 March."""
        lines = (pvlib_data / TMY3_FILE).read_text().splitlines()
        february = [line for line in lines if line.startswith("02/27/1996") or line.startswith("02/28/1996")]
        moved = [line.replace("02/27", "02/28") for line in february[:24]]
        moved += [line.replace("02/28", "02/29") for line in february[24:]]
        (tmp_path / "x.csv").write_text("\n".join([*lines[:2], *february[:24], *moved]))
        rest = Rest(Weather(), tmp_path)
        assert "repeated_times" not in rest.quality["x.csv"]
        assert rest.quality["x.csv"]["num_segments"] == 1 and rest.quality["x.csv"]["num_times"] == 72

    def test_a_cut_file_says_what_it_is(self, pvlib_data, tmp_path):
        lines = (pvlib_data / TMY3_FILE).read_text().splitlines()
        (tmp_path / "x.csv").write_text("\n".join([*lines[:5], "99/99/1988,01:00,0"]))
        (tmp_path / "y.tm2").write_text((pvlib_data / TMY2_FILE).read_text()[:3000] + "\n 62xx")
        reasons = Rest(Weather(), tmp_path).reasons
        assert reasons["x.csv"].startswith("not readable as TMY3: ")
        assert reasons["y.tm2"].startswith("not readable as TMY2: ")


def as_epw(path: Path) -> str:
    """A TMY3 file in the columns and units of EPW."""
    table = pd.read_csv(path, skiprows=1)
    days = table["Date (MM/DD/YYYY)"].str.split("/", expand=True)
    out = pd.DataFrame(0, index=table.index, columns=range(35))
    out[0], out[1], out[2], out[3] = days[2], days[0], days[1], table["Time (HH:MM)"].str[:2].astype(int)
    names = {
        6: "Dry-bulb (C)", 7: "Dew-point (C)", 8: "RHum (%)", 13: "GHI (W/m^2)", 14: "DNI (W/m^2)",
        15: "DHI (W/m^2)", 20: "Wdir (degrees)", 21: "Wspd (m/s)", 22: "TotCld (tenths)",
        23: "OpqCld (tenths)",
    }  # fmt: skip
    for place, name in names.items():
        out[place] = table[name]
    out[9] = 100 * table["Pressure (mbar)"]
    head = "LOCATION,Greensboro,NC,USA,TMY3,723170,36.1,-79.95,-5.0,273.0\n" + "".join(
        f"LINE {n}\n" for n in range(7)
    )
    return head + out.to_csv(index=False, header=False)


class TestGrids:
    @pytest.fixture
    def dataset(self):
        xarray = pytest.importorskip("xarray")
        rng = np.random.default_rng(0)
        shape = (60, 2, 3)
        a = rng.normal(size=shape)
        a[5, 1, 2] = np.nan
        return xarray.Dataset(
            {
                "a": (("time", "lat", "lon"), a),
                "b": (("time", "lat", "lon"), rng.normal(size=shape).astype(np.float32)),
                "height": (("lat", "lon"), np.ones(shape[1:])),
            },
            coords={
                "time": pd.date_range("2020-01-01", periods=60, freq="1h"),
                "lat": [50.5, 51.0],
                "lon": [0.0, 0.1, 0.25],
            },
        )

    @pytest.mark.parametrize("name", ["x.nc", "classic.nc", "x2.zarr", "x3.zarr"])
    def test_a_series_for_each_place(self, dataset, tmp_path, name):
        (tmp_path / "raw").mkdir()
        path = tmp_path / "raw" / name
        if path.suffix == ".zarr":
            dataset.to_zarr(path, zarr_format=int(name[1]), consolidated="2" in name)
        else:
            encoding = {"a": {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -32768}}
            dataset.to_netcdf(path, engine="scipy" if "classic" in name else "h5netcdf", encoding=encoding)
        for source in (path, tmp_path / "raw"):
            rest = Rest(sensor(), source)
            assert not rest.reasons and len(rest.rows) == 6
            row = rest.rows[f"{name}/lat=51,lon=0.25#2020-01-01T00:00:00"]
            assert row["group"] == "lat=51,lon=0.25"
            place = dataset.isel(lat=1, lon=2)
            sample = rest.samples[f"{name}/lat=51,lon=0.25#2020-01-01T00:00:00"]
            np.testing.assert_allclose(sample.values[:, 1], place["b"], rtol=1e-6)
            np.testing.assert_allclose(sample.values[:, 0], place["a"].fillna(0), atol=0.006)
            assert np.argwhere(~sample.observed).tolist() == [[5, 0]]

    def test_large_files_are_read_place_by_place(self, dataset, tmp_path, monkeypatch):
        dataset.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
        whole = Rest(sensor(), tmp_path)
        monkeypatch.setattr("modalities.weather.grids.LOADED_BYTES", 0)
        parts = Rest(sensor(), tmp_path)
        for one, two in zip(whole.samples.values(), parts.samples.values(), strict=True):
            np.testing.assert_array_equal(one.values, two.values)

    def test_stations_and_single_series(self, dataset, tmp_path):
        stations = dataset.isel(lat=0).rename(lon="station").assign_coords(station=["oslo", "rome", "kyiv"])
        stations.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
        dataset.isel(lat=0, lon=0).to_netcdf(tmp_path / "y.nc", engine="h5netcdf")
        rest = Rest(sensor(), tmp_path)
        assert [row["group"] for row in rest.rows.values()] == [
            "station=oslo",
            "station=rome",
            "station=kyiv",
            "y",
        ]

    def test_no_time_and_no_such_variable(self, dataset, tmp_path):
        dataset[["height"]].to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
        reasons = Rest(sensor(), tmp_path).reasons
        assert reasons == {"x.nc": "no time coordinate among lat, lon: set modality.time_column"}
        dataset.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
        with pytest.raises(UserError, match=r"no column height, t2m; its numeric .* are a, b"):
            Rest(sensor(columns=("height", "t2m")), tmp_path / "x.nc")

    def test_model_calendars_are_refused(self, dataset, tmp_path):
        counts = dataset.assign_coords(time=np.arange(60))
        counts["time"].attrs = {"units": "days since 2000-01-01", "calendar": "360_day"}
        counts.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
        rest = Rest(sensor(freq="1D"), tmp_path)
        assert not rest.rows and len({*rest.reasons.values()}) == 1


ARCHIVE = """# a comment
@problemName Test
@timeStamps false
@missing true
@univariate false
@dimensions 3
@equalLength false
@classLabel true left right
@data
1,2,3,4:5,?,7,8:0,0,0,0:left
1,2:3,4:0,0:right
"""


class TestArchive:
    def test_instances_are_rows(self, tmp_path):
        (tmp_path / "x_TRAIN.ts").write_text(ARCHIVE)
        (tmp_path / "x_TEST.ts").write_text(ARCHIVE)
        adapter = sensor(columns=("dim_1", "dim_0", "dim_2"), freq="100ms", min_steps=2)
        rest = Rest(adapter, tmp_path)
        assert adapter.spec.rate_hz == 10
        assert [(row["label"], row["group"], row["length"]) for row in rest.rows.values()] == 2 * [
            ("left", "", 4), ("right", "", 2)
        ]  # fmt: skip
        assert [*rest.splits.values()] == ["test", "test", "", ""]
        sample = rest.samples["x_TRAIN.ts/00000#1970-01-01T00:00:00"]
        np.testing.assert_array_equal(sample.values[:, :2], [[5, 1], [0, 2], [7, 3], [8, 4]])
        assert sample.observed.tolist() == [
            [True, True, False],
            [False, True, False],
            *2 * [[True, True, False]],
        ]
        np.testing.assert_allclose(sample.times, [0, 0.1, 0.2, 0.3], atol=1e-12)
        assert rest.quality["x_TRAIN.ts/00000"]["constant"] == ["dim_2"]

    def test_values_come_back_as_they_were_written(self, tmp_path):
        rng = np.random.default_rng(0)
        instances = [rng.normal(size=(int(rng.integers(5, 30)), 2)) for _ in range(20)]
        lines = [":".join(",".join(map(repr, channel.tolist())) for channel in x.T) for x in instances]
        (tmp_path / "x.ts").write_text("@univariate false\n@classLabel false\n@data\n" + "\n".join(lines))
        rest = Rest(sensor(columns=("dim_0", "dim_1"), min_steps=1), tmp_path)
        for x, (key, sample) in zip(instances, rest.samples.items(), strict=True):
            np.testing.assert_array_equal(sample.values, x.astype(np.float32))
            assert rest.rows[key]["label"] == ""

    @pytest.mark.parametrize(
        "text, reason",
        [
            (ARCHIVE.replace("timeStamps false", "timeStamps true"), "time stamps inside .ts files"),
            (ARCHIVE.partition("@data")[0], "there is no line @data"),
            (ARCHIVE.partition("1,2")[0], "there are no instances"),
            (
                ARCHIVE.replace("1,2:3,4:0,0:right", "1,2:3,4:right"),
                "line 11 has 2 channels, the first one has 3",
            ),
            (ARCHIVE.replace("1,2,3,4:", "1,2,x,4:"), "line 10 is not a row of numbers: could not convert"),
        ],
    )
    def test_damaged_files(self, tmp_path, text, reason):
        (tmp_path / "x.ts").write_text(text)
        assert Rest(sensor(columns=("dim_0",)), tmp_path).reasons["x.ts"].startswith(reason)

    def test_columns_are_told(self, tmp_path):
        (tmp_path / "x.ts").write_text(ARCHIVE)
        with pytest.raises(UserError, match=r"are dim_0, dim_1, dim_2: choose by modality.columns=\[dim_0"):
            Rest(sensor(), tmp_path / "x.ts")


class TestGrid:
    @given(
        st.lists(st.tuples(st.integers(0, 300), st.integers(0, 9)), min_size=1, max_size=60),
        st.sampled_from([1, 5, 60]),
    )
    def test_agrees_with_a_slow_reference(self, found, step):
        times = np.array([time for time, _ in found], float)
        values = np.array([[value, value if value % 2 else np.nan] for _, value in found], float)
        try:
            grid = to_grid(times, values, float(step), 0.0)
        except ValueError as error:
            assert "one value every" in str(error)
            return
        cells: dict[float, list[list[float]]] = {}
        for time, pair in zip(times, values, strict=True):
            same_step = grid.source_step_s >= 0.9 * step
            near = np.abs(grid.times_s - time) if same_step else grid.times_s - time
            assume(not same_step or np.abs(near - step / 2).min() > 1e-6)  # no ties
            place = int(np.argmin(np.where(near < 0, np.inf, near)))
            cells.setdefault(place, [[], []])
            for channel in range(2):
                cells[place][channel] += [pair[channel]] if np.isfinite(pair[channel]) else []
        assert sorted(cells) == [*range(len(grid.cells))]
        for place, channels in cells.items():
            for channel, numbers in enumerate(channels):
                assert grid.observed[place, channel] == bool(numbers)
                assert grid.values[place, channel] == pytest.approx(np.mean(numbers) if numbers else 0)

    @given(
        st.sets(st.integers(0, 9), min_size=1),
        st.sets(st.integers(10, 200)),
        st.integers(0, 8),
        st.integers(1, 40),
    )
    def test_segments_and_pieces_hold_every_value_once(self, first, later, max_gap, max_steps):
        cells = np.array(sorted(first | later))
        values = cells[:, None].astype(float)
        grid = Grid(cells, values, np.ones_like(values, bool), origin_s=7.0, step_s=HOUR, source_step_s=HOUR)
        parts = [piece for segment in segments(grid, max_gap) for piece in pieces(segment, max_steps)]
        assert all(1 <= len(part.cells) <= max_steps for part in parts)
        assert all((np.diff(part.cells) == 1).all() for part in parts)
        seen = [(part.cells[part.observed[:, 0]], part.values[part.observed]) for part in parts]
        np.testing.assert_array_equal(np.concatenate([cell for cell, _ in seen]), cells)
        np.testing.assert_array_equal(np.concatenate([value for _, value in seen]), cells)
        for segment in segments(grid, max_gap):
            assert segment.observed[[0, -1]].all()
            assert (np.diff(np.flatnonzero(segment.observed[:, 0])) <= max_gap + 1).all()


def test_values_beyond_all_measure_are_missing_and_counted():
    values = np.array([[1.0, 2.0], [1e19, 3.0], [-1e300, 1e18]])
    cleaned, counts = clean(values, ("a", "b"), sentinels=(), limits=True, known_units=False)
    np.testing.assert_array_equal(cleaned, [[1, 2], [np.nan, 3], [np.nan, 1e18]])
    assert counts == {"absurd_values": {"a": 2}}


def test_units_are_named_where_they_are_known():
    assert Weather(columns=("a", "b")).spec.units == "as in the source"
    units = Weather(columns=("temp_air", "a", "ghi")).spec.units
    assert units == "temp_air in degC, ghi in W/m2, others as in the source"


def test_advice_on_times_works_on_a_command_line():
    times = pd.Series(["31.12.2020 10:00"] * 3)
    with pytest.raises(ValueError, match=r"modality\.time_format='\"%d\.%m\.%Y %H:%M\"'"):
        to_seconds(times, "", "UTC")
