"""Which rows of a table are one series."""

import numpy as np
import pandas as pd
import pytest
from weather_files import Rest, frame, sensor, write

from modalities.weather import Weather


def moved(minutes: float, offset: float = 0.0, n: int = 100, start: str = "2020-01-01") -> pd.DataFrame:
    """An hourly series whose times and values are moved."""
    table = frame(n, start=start)
    return table.assign(time=table["time"] + pd.Timedelta(minutes=minutes), a=table["a"] + offset)


def messages(n: int = 3000) -> pd.DataFrame:
    """What three devices send, each when it likes; `device` says which."""
    rng = np.random.default_rng(0)
    devices = rng.choice(["b8:27", "00:0f", "1c:bf"], n)
    levels = pd.Series(devices).map({"b8:27": 50, "00:0f": 60, "1c:bf": 75})
    times = 1_594_512_094 + np.sort(rng.random(n)) * n
    return pd.DataFrame(
        {"time": times, "device": devices, "a": levels + rng.normal(size=n), "b": 1.5 * levels}
    )


def groups(rest: Rest) -> dict[str, float]:
    """The mean of the first channel of each series."""
    found: dict[str, list[np.ndarray]] = {}
    for key, row in rest.rows.items():
        found.setdefault(row["group"], []).append(rest.samples[key].values[:, 0])
    return {group: float(np.mean(np.concatenate(values))) for group, values in found.items()}


def readings(source, **settings) -> str:
    return " ".join(next(iter(sensor(**settings).records(source, "all"))).read().readings)


class TestSeveralSeriesInOneTable:
    @pytest.mark.parametrize("order", ["station", "time"])
    def test_stations_whose_times_never_coincide(self, tmp_path, order):
        both = pd.concat([moved(51).assign(station="ORD"), moved(53, 1000).assign(station="MIA")])
        path = write(tmp_path / "x.csv", both.sort_values(order, kind="stable"))
        found = groups(Rest(sensor(), path))
        assert found.keys() == {"ORD", "MIA"} and found["MIA"] - found["ORD"] == pytest.approx(1000)
        assert "column 'station' tells series apart" in readings(path)
        suggested = Weather.suggest(path)
        assert suggested is not None and not suggested.problem
        assert suggested.settings["freq"] == "1h"

    def test_devices_that_report_when_they_like(self, tmp_path):
        path = write(tmp_path / "x.csv", messages())
        found = groups(Rest(sensor(freq="1min", min_steps=10), path))
        assert {group: round(mean) for group, mean in found.items()} == {
            "b8:27": 50,
            "00:0f": 60,
            "1c:bf": 75,
        }

    def test_devices_in_turns(self, tmp_path):
        both = pd.concat([moved(0).assign(device="a"), moved(30, 1000).assign(device="b")])
        path = write(tmp_path / "x.csv", both.sort_values("time"))
        assert groups(Rest(sensor(), path)).keys() == {"a", "b"}

    def test_a_long_table(self, tmp_path):
        both = pd.concat([moved(51).assign(station="ORD"), moved(53, 1000).assign(station="MIA")])
        for name, times in (("apart", both["time"]), ("same", both["time"].dt.floor("h"))):
            path = write(tmp_path / name / "x.csv", both.assign(time=times).melt(["time", "station"]))
            found = groups(Rest(sensor(variable_column="variable"), path))
            assert found.keys() == {"ORD", "MIA"} and found["MIA"] - found["ORD"] == pytest.approx(1000)

    def test_a_long_table_whose_column_has_no_usual_name(self, tmp_path):
        both = pd.concat([moved(0).assign(well=1), moved(0, 1000).assign(well=2)]).melt(["time", "well"])
        path = write(tmp_path / "x.csv", both)
        (reason,) = {*Rest(sensor(variable_column="variable"), path).reasons.values()}
        assert reason.endswith("set modality.id_column=well")

    def test_the_column_that_no_other_divides(self, tmp_path):
        parts = [
            moved(13 * n, 1000 * n).assign(site=f"s{n // 2}", sensor=f"t{n}", place="here") for n in range(4)
        ]
        path = write(tmp_path / "x.csv", pd.concat(parts).sort_values("time"))
        assert groups(Rest(sensor(), path)).keys() == {"t0", "t1", "t2", "t3"}

    @pytest.mark.parametrize("minutes", [13, 15])
    def test_two_columns_that_tell_series_apart_together_only(self, tmp_path, minutes):
        parts = [moved(minutes * n, 1000 * n).assign(site=f"s{n // 2}", sensor=f"t{n % 2}") for n in range(4)]
        path = write(tmp_path / "x.csv", pd.concat(parts).sort_values("time"))
        reasons = Rest(sensor(), path).reasons
        assert reasons["x.csv"].startswith("columns 'site' and 'sensor' both tell series apart, and neither")
        assert "modality.id_column" in reasons["x.csv"]

    def test_sensors_without_a_usual_name_within_stations(self, tmp_path):
        parts = [moved(7 * (n // 2), 1000 * n).assign(site=f"s{n // 2}", depth=n % 2 + 1) for n in range(4)]
        path = write(tmp_path / "x.csv", pd.concat(parts).sort_values("time"))
        reasons = Rest(sensor(), path).reasons
        assert all("'depth' tells the rows apart" in reason for reason in reasons.values()) and reasons
        assert all("even of one 'site'" in reason for reason in reasons.values())
        asked = Rest(sensor(id_column="site"), path)
        assert groups(asked).keys() == {"s0", "s1"} and not asked.reasons  # as the user wishes


class TestOneSeries:
    def test_deployments_that_follow_one_another(self, tmp_path):
        parts = [moved(0, n=60, start=f"2020-01-{day}").assign(sensor=day) for day in ("01", "04", "07")]
        path = write(tmp_path / "x.csv", pd.concat(parts))
        assert groups(Rest(sensor(), path)).keys() == {"x"}

    @pytest.mark.parametrize("length", [1, 40])
    def test_states_of_one_series(self, tmp_path, length):
        rng = np.random.default_rng(0)
        places = rng.choice(["in", "out", "cellar"], 400 // length, p=[0.7, 0.2, 0.1]).repeat(length)
        path = write(tmp_path / "x.csv", frame(400).assign(location=places))
        assert groups(Rest(sensor(), path)).keys() == {"x"}

    def test_numbers_of_rows_and_missing_ids(self, tmp_path):
        table = frame(100).assign(id=np.arange(100), station=[None, *["a"] * 99])
        path = write(tmp_path / "x.csv", table)
        assert groups(Rest(sensor(), path)).keys() == {"x"}


def grid(by: str) -> pd.DataFrame:
    """An hourly grid of two latitudes and three longitudes as xarray writes it into a table."""
    parts = []
    for number in range(6):
        place = {"latitude": 50.5 - 0.25 * (number // 3), "longitude": 0.25 * (number % 3), "number": 0}
        table = frame(60, seed=number).rename(columns={"time": "valid_time"})
        parts.append(table.assign(**place, a=100.0 * number + np.arange(60)))
    return pd.concat(parts).sort_values(by, kind="stable")


class TestPlaces:
    @pytest.mark.parametrize("by", ["valid_time", "longitude"])
    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_a_latitude_and_a_longitude_name_a_series(self, tmp_path, by, suffix):
        path = write(tmp_path / f"x.{suffix}", grid(by=by))
        found = groups(Rest(sensor(), path))
        assert len(found) == 6
        assert found["latitude=50.25,longitude=0.5"] == pytest.approx(500 + 29.5)
        assert "columns 'latitude' and 'longitude' tell series apart" in readings(path)
        suggested = Weather.suggest(path)
        assert suggested is not None and not suggested.problem
        assert suggested.settings == {"columns": ("a", "b"), "freq": "1h"}

    def test_a_moving_sensor_with_a_coarse_clock_is_one(self, tmp_path):
        table = frame(3000, freq="20s").assign(lat=50.0, lon=np.arange(3000) / 1000)
        path = write(tmp_path / "x.csv", table.assign(time=table["time"].dt.floor("min")))
        assert groups(Rest(sensor(freq="1min"), path)).keys() == {"x"}

    @pytest.mark.parametrize("keep", [1, 2])
    def test_other_columns_that_tell_the_rows_apart_together_are_named(self, tmp_path, keep):
        names = {"latitude": "north", "longitude": "east"}
        table = grid(by="valid_time").rename(columns=names)
        path = write(tmp_path / "x.csv", table if keep == 2 else table[table["north"] == 50.5])
        settings = "north+east" if keep == 2 else "east"
        (reason,) = {*Rest(sensor(), path).reasons.values()}
        assert reason.endswith(f"several series are in one table, set modality.id_column={settings}")
        told = Rest(sensor(id_column=settings), path)
        assert len(groups(told)) == 3 * keep and not told.reasons

    def test_columns_that_are_asked_for_together(self, tmp_path):
        parts = [moved(0, 1000 * n).assign(site=f"s{n // 2}", depth=n % 2 + 1) for n in range(4)]
        path = write(tmp_path / "x.csv", pd.concat(parts))
        found = groups(Rest(sensor(id_column="site+depth"), path))
        assert found.keys() == {f"site=s{n // 2},depth={n % 2 + 1}" for n in range(4)}
        reasons = Rest(sensor(id_column="site+level"), path).reasons
        assert reasons["x.csv"].startswith("there is no id column 'level' among time, a, b, site, depth")


class TestLongTables:
    """By station, element and day, as GHCN has them: nobody has said that the table is long."""

    @pytest.mark.parametrize("counts", [(200, 190, 180, 170), (200, 190, 60, 50)])
    def test_names_of_what_and_of_where_are_both_said(self, tmp_path, counts):
        names = ("TMAX", "TMIN", "PRCP", "SNOW")
        parts = [
            frame(200, freq="1D", seed=n)[["time", "a"]].sample(count, random_state=n).assign(ELEMENT=name)
            for n, (name, count) in enumerate(zip(names, counts, strict=True))
        ]
        parts = [part.assign(ID="USW1", OBS=700) for part in parts]
        path = write(tmp_path / "x.csv", pd.concat(parts).sort_values("time", kind="stable"))
        (reason,) = {*Rest(sensor(columns=("a",), freq="1D"), path).reasons.values()}
        assert reason == (
            "column 'ELEMENT' tells rows of one time apart: if it says where, set "
            "modality.id_column=ELEMENT; if what, modality.variable_column=ELEMENT modality.value_column=a "
            "'modality.columns=[TMAX,TMIN,PRCP]'"
        )
        assert len(reason) <= 200
        told = {"variable_column": "ELEMENT", "value_column": "a", "columns": ("TMAX", "TMIN"), "freq": "1D"}
        rest = Rest(sensor(**told), path)
        assert not rest.reasons and groups(rest).keys() == {"x"}

    def test_a_column_that_is_called_after_what_it_names_counts_first(self, tmp_path):
        parts = [
            frame(60, seed=n)[["time", "a"]].assign(sensors_id=70 + n, parameter=name)
            for n, name in enumerate(("pm25", "o3"))
        ]
        path = write(tmp_path / "x.csv", pd.concat(parts))
        (reason,) = {*Rest(sensor(columns=("a",)), path).reasons.values()}
        assert reason.startswith("column 'parameter' tells")


class TestStatesThatRepeatTimes:
    """A row for each text about an hour, as in the traffic of UCI."""

    @pytest.fixture
    def traffic(self, tmp_path):
        table = frame(500).assign(sky="Clouds")
        more = table.sample(frac=0.25, random_state=0).assign(sky="Rain")
        return write(tmp_path / "x.csv", pd.concat([table, more]).sort_values("time", kind="stable"))

    @pytest.mark.parametrize("columns", [("a", "b"), ("a",)])
    def test_are_not_proposed_as_series_alone(self, traffic, columns):
        (reason,) = {*Rest(sensor(columns=columns), traffic).reasons.values()}
        assert reason == (
            "20% of the times are repeated, and column 'sky' tells their rows apart. If it names states, set "
            "modality.id_column=none, which averages them; if series, modality.id_column=sky"
        )

    def test_are_averaged_where_the_user_says_so(self, traffic):
        (record, _) = sensor(id_column="none").records(traffic, "all")
        read = record.read()
        assert "20% of the times are repeated: their values are averaged" in read.notices
        assert record.group == "x" and sum(row["length"] for row in read.rows) == 400

    def test_none_is_a_name_where_a_column_has_it(self, tmp_path):
        both = pd.concat([moved(0).assign(none="x"), moved(0, 1000).assign(none="y")])
        path = write(tmp_path / "x.csv", both)
        assert groups(Rest(sensor(id_column="none"), path)).keys() == {"x", "y"}


def test_blanks_in_a_name_are_no_other_name(tmp_path):
    both = pd.concat(
        [moved(0).assign(**{"Station Name": "ORD"}), moved(0, 1).assign(**{"Station Name": "MIA"})]
    )
    assert groups(Rest(sensor(), write(tmp_path / "x.csv", both))).keys() == {"ORD", "MIA"}


def test_minutes_with_an_unusual_name_may_be_of_the_time(tmp_path):
    table = frame(400, freq="10min")
    parts = {name: getattr(table["time"].dt, name) for name in ("year", "month", "day", "hour")}
    table = table.assign(**parts, Minuten=table["time"].dt.minute).drop(columns="time")
    path = write(tmp_path / "x.csv", table)
    (reason,) = {*Rest(sensor(freq="10min"), path).reasons.values()}
    assert "set modality.time_column=year+month+day+hour+Minuten if it holds minutes" in reason
    told = Rest(sensor(freq="10min", time_column="year+month+day+hour+Minuten"), path)
    assert groups(told).keys() == {"x"} and sum(row["length"] for row in told.rows.values()) == 400


def test_an_hour_with_an_unusual_name_may_be_the_time_of_day(tmp_path):
    table = frame(400)
    days = table.assign(time=table["time"].dt.strftime("%Y-%m-%d"), step=table["time"].dt.hour)
    path = write(tmp_path / "x.csv", days)
    (reason,) = {*Rest(sensor(), path).reasons.values()}
    assert "set modality.time_column=time+step if it is a time of day" in reason
    told = Rest(sensor(time_column="time+step"), path)
    assert groups(told).keys() == {"x"} and sum(row["length"] for row in told.rows.values()) == 400
