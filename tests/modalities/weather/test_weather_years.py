from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from weather_files import HOUR, Rest, frame, write

from modalities.weather import Weather

TMY3_FILE, TMY3_ALASKA, TMY2_FILE = "723170TYA.CSV", "703165TY.csv", "12839.tm2"


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
