import numpy as np
import pandas as pd
import pytest
from weather_files import Rest, sensor

from seqssl import UserError


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
