"""What `recipe=auto` takes for the channels of series."""

import numpy as np
import pandas as pd
import pytest
from weather_files import frame, write

from modalities.weather import Weather
from modalities.weather.clock import freq_of


def suggested(source):
    found = Weather.suggest(source)
    assert found is not None and not found.problem, found
    return found


class TestColumns:
    def test_all_rows_are_looked_at(self, tmp_path):
        """Irradiance from midnight on, rain after a dry start, what an older station had not."""
        table = frame(400, freq="1min").assign(ghi=0.0, rain=0.0, sunshine=np.nan)
        table.loc[300:, ["ghi", "rain", "sunshine"]] = np.random.default_rng(0).random((100, 3))
        found = suggested(write(tmp_path / "x.csv", table))
        assert found.settings == {"columns": ("a", "b", "ghi", "rain", "sunshine"), "freq": "1min"}
        assert "left out" not in found.words

    @pytest.mark.parametrize("word", ["T", "mq", "---", "34s"])
    def test_a_word_among_numbers_costs_its_cell_only(self, tmp_path, word):
        table = frame(100).astype({"b": object})
        table.loc[3, "b"] = word
        assert suggested(write(tmp_path / "x.csv", table)).settings["columns"] == ("a", "b")

    def test_counts_and_labels_are_left_out_and_said(self, tmp_path):
        table = frame(300)
        rng = np.random.default_rng(0)
        marks = {"anomaly": 0, "changepoint": 0, "QN_9": 3, "label:SITTING": 0}
        table = table.assign(**{name: rng.integers(0, 2, 300) + low for name, low in marks.items()})
        table = table.assign(
            No=range(1, 301), entry_id=np.cumsum(1 + (rng.random(300) < 0.1)), b_count=table["b"].rank()
        )
        table["Unix"] = table["time"].astype("datetime64[s]").astype("int64")
        table["#"], table["dead"] = range(300, 600), 7.5
        table["words"] = "calm"
        found = suggested(write(tmp_path / "x.csv", table.drop(index=range(20, 30))))
        assert found.settings["columns"] == ("a", "b", "b_count")
        assert "left out: anomaly, changepoint, QN_9, label:SITTING (labels by name)" in found.words
        assert "No, entry_id, Unix, # (counting), dead (never changing)" in found.words

    def test_counts_within_stations(self, tmp_path):
        parts = [frame(100, seed=n).assign(station=f"s{n}", No=range(100)) for n in range(2)]
        path = write(tmp_path / "x.csv", pd.concat(parts).sort_values("time", kind="stable"))
        assert suggested(path).settings["columns"] == ("a", "b")


class TestOtherFormats:
    def test_pipes_are_tables(self, tmp_path):
        write(tmp_path / "x.psv", frame(100), sep="|")
        assert suggested(tmp_path).settings == {"columns": ("a", "b"), "freq": "1h"}

    def test_an_archive(self, tmp_path):
        lines = [f"1,2,{n},4,5:5,4,3,2,{n}:{'ab'[n % 2]}" for n in range(4)]
        text = "@timeStamps false\n@classLabel true a b\n@data\n" + "\n".join(lines) + "\n"
        (tmp_path / "x_TRAIN.ts").write_text(text)
        found = suggested(tmp_path)
        assert found.settings == {"columns": ("dim_0", "dim_1"), "min_steps": 5}
        assert "modality.freq has to say" in found.words

    @pytest.mark.parametrize("suffix", ["nc", "zarr"])
    def test_a_grid(self, tmp_path, suffix):
        xarray = pytest.importorskip("xarray")
        values = np.random.default_rng(0).normal(size=(60, 2))
        times = pd.date_range("2020-01-01", periods=60, freq="3h")
        data = xarray.Dataset(
            {"t2m": (("time", "lat"), values), "qc_flag": (("time", "lat"), np.ones((60, 2), int))},
            coords={"time": times, "lat": [50.0, 51.0]},
        )
        if suffix == "nc":
            data.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
        else:
            data.to_zarr(tmp_path / "x.zarr", zarr_format=2, consolidated=False)
        assert suggested(tmp_path).settings == {"columns": ("t2m",), "freq": "3h"}


@pytest.mark.parametrize(
    "seconds, freq",
    [
        (600, "10min"),
        (3600, "1h"),
        (5400, "90min"),
        (86_400, "1D"),
        (604_800, "7D"),
        (0.02, "20ms"),
        (59.99, "1min"),
    ],
)
def test_steps_as_people_write_them(seconds, freq):
    assert freq_of(float(seconds)) == freq
