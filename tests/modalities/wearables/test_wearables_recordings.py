import shutil
import subprocess
import sys
import types

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wearables_files import (
    START,
    assert_true,
    beside,
    clock,
    found,
    frame,
    prepared,
    read,
    refused,
    steps,
    truth,
    turning,
    values,
    with_actipy,
    write,
)

from modalities.wearables.recordings import text
from seqssl import Rejected, UserError


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


def logged(folder, *names: str) -> dict[str, str]:
    """A phone's files of one sensor each, with axes x, y, z; why each is rejected, "" where it is not."""
    for number, name in enumerate(names):
        table = frame(values=truth(clock(), number)).rename(columns={"time": "seconds_elapsed"})
        write(folder / name, table[["seconds_elapsed", "z", "y", "x"]])
    records = found(folder)
    return {
        getattr(record, "path", "") or record.key: record.reason if isinstance(record, Rejected) else ""
        for record in records
    }


class TestSensorsOfPhones:
    others = ("Gyroscope", "GyroscopeUncalibrated", "Magnetometer", "Gravity", "Orientation", "rotationRate")
    accelerations = ("Accelerometer", "TotalAcceleration", "LinearAcceleration", "userAcceleration", "ACC")

    def test_are_told_apart_by_the_names_of_files(self, tmp_path):
        reasons = logged(tmp_path / "raw", *(f"walk/{name}.csv" for name in self.others + self.accelerations))
        assert {name.removeprefix("walk/").removesuffix(".csv") for name in reasons if reasons[name]} == {
            *self.others
        }
        assert reasons["walk/Gravity.csv"] == (
            "'Gravity.csv' is named after another sensor (Gravity) than an accelerometer: if it is one, set "
            "modality.accelerometer_columns=[x,y,z]"
        )
        told = found(tmp_path / "raw", accelerometer_columns=("x", "y", "z"))
        assert not any(isinstance(record, Rejected) for record in told)

    def test_are_told_apart_by_the_nearest_folder(self, tmp_path):
        names = ("phone/gyro/s1.csv", "phone/accel/s1.csv", "gravity/acc_s2.csv", "watch/data_gyro_1.csv")
        reasons = logged(tmp_path / "raw", *names)
        assert [name for name in names if reasons[name]] == [names[0], names[3]]
        assert all(map(bool, logged(tmp_path / "gyro", "s1.csv", "deep/s2.csv").values()))

    def test_names_of_people_are_none_of_sensors(self, tmp_path):
        assert not any(logged(tmp_path / "raw", "magda.csv", "gary/rota.csv", "compassion.csv").values())

    def test_columns_that_name_their_sensor_need_no_name_of_a_file(self, tmp_path):
        table = frame(gyroscope=True)
        assert_true(values(read(write(tmp_path / "gyro.csv", table))))
        named = frame().rename(columns={axis: f"acc_{axis}" for axis in "xyz"})
        assert_true(values(read(write(tmp_path / "gyroscope.csv", named))))

    def test_arrays_are_told_apart_too(self, tmp_path):
        np.save(tmp_path / "gyro.npy", truth(clock()))
        assert "another sensor (gyro)" in refused(tmp_path / "gyro.npy", source_rate_hz=50.0)


class TestSignals:
    @given(
        st.sampled_from(
            [7, 7.0, "7", "7.0", " 7 ", b"7", np.int64(7), np.float32(7), np.float64(7), np.str_("7")]
        )
    )
    def test_ids_are_the_same_text_however_they_are_stored(self, value):
        assert text(value) == "7"

    def test_missing_ids_are_empty(self):
        assert {text(value) for value in (None, np.nan, pd.NA, pd.NaT, "", " ")} == {""}
        assert text("07") == "07" and text(7.5) == "7.5"
