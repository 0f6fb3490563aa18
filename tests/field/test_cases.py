"""Cases of public bug reports that no other file here has, rebuilt in small."""

import io
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import soundfile
from field import prepare, values_of
from test_sound import encoded, sine

HOURS = pd.date_range("2020-01-01", periods=720, freq="h")


@pytest.mark.parametrize(
    "how", ["a packed fill value", "valid_range", "valid_min of packed values", "_FillValue"]
)
def test_netcdf_fill_values_are_missing(tmp_path: Path, how: str) -> None:
    xarray = pytest.importorskip("xarray")
    kelvin = 283 + 8 * np.sin(np.arange(720) / 24 * 2 * np.pi)
    values = kelvin.astype(np.float32)
    values[100:110] = -32767 if how == "a packed fill value" else 900.0
    data = xarray.Dataset({"t2m": ("time", values)}, coords={"time": HOURS})
    encoding: dict[str, object] = {}
    if how == "valid_range":
        data["t2m"].attrs["valid_range"] = np.array([150.0, 350.0], np.float32)
    elif how == "valid_min of packed values":
        encoding = {
            "dtype": "int16",
            "scale_factor": 0.1,
            "add_offset": 250.0,
            "_FillValue": np.int16(-32768),
        }
        data["t2m"].attrs["valid_max"] = np.int16(1000)  # 350 K
    elif how == "_FillValue":
        data["t2m"][100:110] = np.nan
        encoding = {"_FillValue": np.float32(-9.96921e36)}
    (tmp_path / "in").mkdir()
    data.to_netcdf(tmp_path / "in" / "x.nc", engine="h5netcdf", encoding={"t2m": encoding})
    found = prepare("weather", tmp_path / "in", "modality.columns=[t2m]")
    seen = np.concatenate([values_of(row)[:, 0] for row in found.rows])
    assert len(seen) == 720 and np.isnan(seen).sum() == 10 and np.nanmin(seen) > 250, found.message


def mp3(*, xing: bool) -> bytes:
    """Ten seconds of variable bit rate; the frame that counts the others is cut off, or not."""
    rng = np.random.default_rng(0)
    sound = np.concatenate([0.3 * rng.normal(size=80_000), 0.001 * rng.normal(size=80_000)]).clip(-1, 1)
    data = encoded(sound.astype(np.float32), "mp3", "libmp3lame", **{"q": "4"})
    start = data.index(b"\xff\xf3") if b"\xff\xf3" in data[:2000] else data.index(b"\xff\xfb")
    if xing or not (b"Xing" in data[:2000] or b"Info" in data[:2000]):
        return data
    second = data.index(data[start : start + 2], start + 4)
    return data[second:]


@pytest.mark.parametrize("xing", [True, False])
def test_mp3_of_variable_rate_without_a_count(tmp_path: Path, xing: bool) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp3").write_bytes(mp3(xing=xing))
    found = prepare("speech", tmp_path / "in")
    assert found.rows[0]["length"] / 16_000 == pytest.approx(10.0, abs=0.2)


def test_aac_whose_channels_change(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="adts") as container:
        stream = container.add_stream("aac", rate=16_000)
        stream.layout = "stereo"
        stereo = np.stack([sine(300, 2), sine(300, 2)])
        for start in range(0, stereo.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(stereo[:, start : start + 1024]), format="fltp", layout="stereo"
            )
            frame.sample_rate = 16_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "in" / "a.aac").write_bytes(encoded(sine(300, 2), "adts", "aac") + buffer.getvalue())
    found = prepare("speech", tmp_path / "in")
    assert found.rows[0]["length"] / 16_000 == pytest.approx(4.1, abs=0.3), found.message


def test_blanks_in_the_header_of_a_device(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head = [
        "------------ Data File Created By ActiGraph GT3X+ ActiLife v6.13.3 Firmware v1.9.2 date format d/MM/yyyy at 60 Hz  Filter Normal -----------",
        "Serial Number: TAS1", "Start   Time 17:33:00", "Start   Date 02/04/2015", "Epoch Period (hh:mm:ss) 00:00:00",
        "Download Time 10:00:00", "Download Date 03/04/2015", "Current Memory Address: 0", "Current Battery Voltage: 4 Mode = 12",
        "-" * 40, "Accelerometer X,Accelerometer Y,Accelerometer Z",
    ]  # fmt: skip
    rows = [f"{x:.3f},{y:.3f},{0.9 + z:.3f}" for x, y, z in 0.1 * rng.normal(size=(3600, 3))]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "s1.csv").write_text("\n".join([*head, *rows]) + "\n")
    found = prepare("wearables", tmp_path / "in", "modality.calibrate=false")
    assert min(row["start"] for row in found.rows).startswith("2015-04-02T17:33:00")
    assert sum(row["length"] for row in found.rows) == pytest.approx(1800, abs=30)


@pytest.mark.parametrize("number", ["1e+05", "100000", "1E5", "1.0e5"])
def test_intervals_as_r_writes_them(tmp_path: Path, number: str) -> None:
    (tmp_path / "in").mkdir()
    letters = "".join(np.random.default_rng(0).choice([*"ACGT"], 101_500))
    (tmp_path / "in" / "g.fa").write_text(f">chr1\n{letters}\n")
    (tmp_path / "in" / "i.bed").write_text(
        f"chr1\t99000\t{number}\tp1\nchr1\t{number}\t101000\tp2\nchr1\tx\t5\tp3\n"
    )
    found = prepare("dna", tmp_path / "in" / "g.fa", f"modality.intervals={tmp_path / 'in' / 'i.bed'}")
    assert {row["key"] for row in found.rows} == {"chr1:99000-100000", "chr1:100000-101000"}
    assert "not 'chr1 x 5" in found.rejected["i.bed:3"]


@pytest.mark.parametrize("packed", [False, True])
def test_comments_in_fasta(tmp_path: Path, packed: bool) -> None:
    import gzip

    first, second = ("".join(np.random.default_rng(n).choice([*"ACGT"], 300)) for n in (1, 2))
    text = f";a comment\n;another\n>a one\n{first[:100]}\n;inside\n{first[100:]}\n>b two\n{second}\n;at the end\n"
    (tmp_path / "in").mkdir()
    name = "g.fa.gz" if packed else "g.fa"
    (tmp_path / "in" / name).write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = prepare("dna", tmp_path / "in")
    assert {row["sequence"] for row in found.rows} == {first, second}


def test_wav_of_24_bits_and_extensible(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, subtype, form in (
        ("a.wav", "PCM_24", "WAV"),
        ("b.wav", "FLOAT", "WAVEX"),
        ("c.wav", "ULAW", "WAV"),
        ("d.w64", "PCM_16", "W64"),
    ):
        soundfile.write(tmp_path / "in" / name, sine(400, 1), 16_000, subtype=subtype, format=form)
    assert {row["length"] for row in prepare("speech", tmp_path / "in").rows} == {16_000}


@pytest.mark.parametrize("size", [3, 6])
def test_overlapping_kmers_are_one_letter_each(tmp_path: Path, size: int) -> None:
    letters = ["".join(np.random.default_rng(n).choice([*"ACGT"], 90)) for n in range(4)]
    kmers = [" ".join(text[at : at + size] for at in range(len(text) - size + 1)) for text in letters]
    blocks = [" ".join(text[at : at + 10] for at in range(0, len(text), 10)) for text in letters]
    (tmp_path / "in").mkdir()
    pd.DataFrame({"sequence": kmers, "label": 1}).to_csv(tmp_path / "in" / "a.tsv", sep="\t", index=False)
    assert {row["sequence"] for row in prepare("dna", tmp_path / "in").rows} == {*letters}
    pd.DataFrame({"sequence": blocks, "label": 1}).to_csv(tmp_path / "in" / "a.tsv", sep="\t", index=False)
    assert {row["sequence"] for row in prepare("dna", tmp_path / "in").rows} == {*letters}
