"""What files say of each other: of which station they are, and whether they hold the same quantities."""

import re

import numpy as np
import pandas as pd
import pytest
from weather_files import frame, sensor, write

from seqssl import UserError


def groups(source, **settings) -> dict[str, str]:
    """The group of each file."""
    return {row.key: row.group for row in sensor(**settings).records(source, "all")}


def notices(source, **settings) -> str:
    return " ".join(
        notice for row in sensor(**settings).records(source, "all") for notice in row.read().notices
    )


def of(column: str, value) -> pd.DataFrame:
    return frame(48).assign(**{column: value})


class TestIdsThatStayTheSame:
    @pytest.mark.parametrize("column", ["STATIONS_ID", "Station Name", "sensor_id"])
    def test_files_of_one_station_are_a_group(self, tmp_path, column):
        for name, station in (("recent_44", 44), ("old_44", 44), ("old_91", 91)):
            write(tmp_path / f"x_{name}.csv", of(column, station))
        assert groups(tmp_path) == {"x_old_44.csv": "44", "x_recent_44.csv": "44", "x_old_91.csv": "91"}

    def test_days_of_sensors(self, tmp_path):
        for day in ("2023-01-01", "2023-01-02"):
            for number, kind in ((141, "bme280"), (980, "sds011")):
                table = of("sensor_id", number).assign(location=65)
                write(tmp_path / day / f"{day}_{kind}_sensor_{number}.csv", table)
        assert {*groups(tmp_path).values()} == {"141", "980"} and not notices(tmp_path)

    def test_days_of_sensors_of_one_kind(self, tmp_path):
        for day in ("2023-01-01", "2023-01-02"):
            for number, kind in ((141, "bme280"), (162, "bme280"), (980, "sds011")):
                path = tmp_path / day / f"{day}_{kind}_sensor_{number}.csv"
                write(path, of("sensor_id", number).assign(location=65))
        assert {*groups(tmp_path).values()} == {"141", "162", "980"} and not notices(tmp_path)

    @pytest.mark.parametrize("column", ["sensor", "city", "location", "name"])
    def test_what_may_be_of_many_stations_is_only_said(self, tmp_path, column):
        for name, kind in zip("abcd", ("DHT22", "DHT22", "BME280", "BME280"), strict=True):
            write(tmp_path / f"{name}.csv", of(column, kind))
        assert {*groups(tmp_path).values()} == {*"abcd"}
        assert f"if it names stations, set modality.id_column={column}" in notices(tmp_path)
        assert {*groups(tmp_path, id_column=column).values()} == {"DHT22", "BME280"}

    def test_a_column_of_stations_counts_before_their_cities(self, tmp_path):
        for station, city in (("Blindern", "Oslo"), ("Alna", "Oslo"), ("Ciampino", "Rome")):
            write(tmp_path / f"x{station}.csv", of("station", station).assign(city=city))
        assert {*groups(tmp_path).values()} == {"xBlindern", "xAlna", "xCiampino"} and not notices(tmp_path)

    def test_stations_that_another_id_divides_are_only_said(self, tmp_path):
        for number, station in enumerate(("Alna", "Alna", "Ciampino")):
            write(tmp_path / f"x{number}.csv", of("site", station).assign(device_id=f"d{number}"))
        assert {*groups(tmp_path).values()} == {"x0", "x1", "x2"}
        assert "set modality.id_column=site" in notices(tmp_path)

    def test_stations_of_one_city_stay_apart(self, tmp_path):
        for station in ("Aoti", "Dongsi"):
            write(tmp_path / f"PRSA_{station}.csv", of("station", station).assign(city="Beijing"))
        assert groups(tmp_path) == {"PRSA_Aoti.csv": "PRSA_Aoti", "PRSA_Dongsi.csv": "PRSA_Dongsi"}

    def test_houses_of_cities_stay_apart(self, tmp_path):
        for house, city in (("house1", "Oslo"), ("house2", "Oslo"), ("house3", "Rome")):
            for number in (1, 2):
                write(tmp_path / house / f"{number}.csv", of("city", city))
        assert {*groups(tmp_path).values()} == {"house1", "house2", "house3"}

    def test_numbers_that_folders_count_are_only_said(self, tmp_path):
        for house in ("house1", "house2"):
            for number in (1, 2):
                write(tmp_path / house / f"{number}.csv", of("sensor_id", number))
        assert {*groups(tmp_path).values()} == {"house1", "house2"}
        assert "set modality.id_column=sensor_id" in notices(tmp_path)
        assert {*groups(tmp_path, id_column="sensor_id").values()} == {"1", "2"}

    def test_a_station_beside_a_table_of_several(self, tmp_path):
        both = pd.concat([of("station", "a"), of("station", "b")])
        write(tmp_path / "both.csv", both)
        write(tmp_path / "later.csv", of("station", "a"))
        assert groups(tmp_path) == {"both.csv/a": "a", "both.csv/b": "b", "later.csv": "a"}

    def test_a_pattern_counts_first(self, tmp_path):
        for name in ("a1", "a2", "b1"):
            write(tmp_path / f"{name}.csv", of("station", name[1]))
        assert groups(tmp_path, group_pattern=r"^(\w)\d") == {"a1.csv": "a", "a2.csv": "a", "b1.csv": "b"}


PLACES = ("Vancouver", "Portland", "Miami")


def places(low: float, spread: float, start: str = "2012-10-01") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    times = pd.date_range(start, periods=60, freq="1h")
    return pd.DataFrame({"datetime": times, **{name: low + spread * rng.random(60) for name in PLACES}})


class TestFilesOfOneQuantityEach:
    def test_are_refused_together(self, tmp_path):
        write(tmp_path / "temperature.csv", places(280, 15))
        write(tmp_path / "pressure.csv", places(1000, 30))
        write(tmp_path / "humidity.csv", places(30, 60))
        with pytest.raises(
            UserError, match=r"hold different things in .*\.csv and .*Join them into one table"
        ):
            groups(tmp_path, columns=PLACES)
        for name in ("pressure", "humidity"):
            (tmp_path / f"{name}.csv").unlink()
        assert groups(tmp_path, columns=PLACES).keys() == {"temperature.csv", "temperature.csv/valid"}

    def test_winters_summers_and_heights_are_read(self, tmp_path):
        for name, low in (("temperature_winter", -20), ("temperature_summer", 25)):
            write(tmp_path / "seasons" / f"{name}.csv", places(low, 5))
        for name, low in (("valley", 1000), ("mountain", 700)):
            table = places(low, 20).rename(columns={"Miami": "pressure"})[["datetime", "pressure"]]
            write(tmp_path / "heights" / f"{name}.csv", table)
        assert len(groups(tmp_path / "seasons", columns=PLACES)) == 2
        assert len(groups(tmp_path / "heights", columns=("pressure",))) == 2
        assert not notices(tmp_path / "seasons", columns=PLACES)
        assert not notices(tmp_path / "heights", columns=("pressure",))

    @pytest.mark.parametrize(
        "names, column", [(("Snow_Lake", "Wind_River"), "TA"), (("solar_farm", "wind_farm"), "output_mw")]
    )
    def test_places_whose_names_sound_like_quantities_are_read(self, tmp_path, names, column):
        for name, low in zip(names, (-15, 12), strict=True):
            table = places(low, 14).rename(columns={"Miami": column})[["datetime", column]]
            write(tmp_path / f"{name}.csv", table)
        assert {*groups(tmp_path, columns=(column,)).values()} == {*names}
        assert "columns of one name lie far apart" in notices(tmp_path, columns=(column,))

    def test_only_names_of_files_count_and_a_pattern_is_a_way_out(self, tmp_path):
        for name, low in (("snow/a", -15), ("wind/b", 12)):
            write(tmp_path / "folders" / f"{name}.csv", places(low, 10))
        for name, low in (("Snow_Lake", -15), ("Wind_River", 12)):
            write(tmp_path / "names" / f"{name}.csv", places(low, 10))
        assert len(groups(tmp_path / "folders", columns=PLACES)) == 2
        with pytest.raises(UserError, match=r"set modality\.group_pattern=") as raised:
            groups(tmp_path / "names", columns=PLACES)
        pattern = re.search("group_pattern='(.*)'", str(raised.value))[1]
        told = groups(tmp_path / "names", columns=PLACES, group_pattern=pattern)
        assert {*told.values()} == {"Snow_Lake", "Wind_River"}

    def test_what_only_values_tell_is_said(self, tmp_path):
        write(tmp_path / "first.csv", places(280, 15))
        write(tmp_path / "second.csv", places(1000, 30))
        assert "columns of one name lie far apart" in notices(tmp_path, columns=PLACES)
