"""G, H and I: nothing in a file ends the folder, what is typed stays what it is, every reason says what to do."""

import errno
import gzip
import json
import os
import pickle
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import mutants
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from field import prepare, seqssl, write_abc

HOURS = pd.date_range("2020-01-01", periods=240, freq="h")
COLUMNS = "modality.columns=[temp_air]"


def hours(folder: Path, name: str = "good.csv") -> Path:
    folder.mkdir(exist_ok=True)
    pd.DataFrame({"time": HOURS, "temp_air": np.arange(240) % 24}).to_csv(folder / name, index=False)
    return folder


def sound(folder: Path, name: str = "good.wav") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("wb") as file:  # by its handle: the name may be no UTF-8
        soundfile.write(file, 0.3 * np.sin(np.arange(16_000) / 8), 16_000, format="WAV")
    return folder


@pytest.mark.parametrize("modality", [*mutants.MODALITIES])
def test_mutants(tmp_path: Path, modality: str) -> None:
    names = mutants.write(tmp_path / "in", modality, 40, seed=1)
    assert [*mutants.faults(tmp_path / "in", modality, names)] == []


@pytest.mark.skipif(os.name == "nt", reason="names there are Unicode")
@pytest.mark.parametrize("name", [b"caf\xe9", b"M\xfcnchen", b"\xff\xfe", "ü\n".encode(), b"a\x1b[31m"])
def test_names_that_are_no_utf8_or_no_text(tmp_path: Path, name: bytes) -> None:
    source = hours(tmp_path / "in")
    (source / os.fsdecode(name)).mkdir()
    hours(source / os.fsdecode(name), "s.csv")
    found = prepare("weather", source, COLUMNS)
    assert len({row["key"] for row in found.rows}) >= 2 and all(
        row["key"].isprintable() for row in found.rows
    )
    audio = sound(tmp_path / "audio")
    sound(audio, os.fsdecode(name + b".wav"))
    assert len(prepare("speech", audio).rows) == 2


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    source = sound(tmp_path / "in")
    os.mkfifo(source / "x.trans.txt")
    os.mkfifo(source / "pipe.wav")
    (source / "y.trans.txt").mkdir()
    (source / "metadata.csv").mkdir()
    assert len(prepare("speech", source).rows) == 1
    assert "neither a file nor a folder" in prepare("speech", source / "pipe.wav").message


def limited(reasons: dict[str, str]) -> None:
    assert all(len(reason) <= 200 and reason.isprintable() for reason in reasons.values())


def test_reasons_are_short_however_long_a_line_is(tmp_path: Path) -> None:
    source = hours(tmp_path / "in")
    (source / "names.csv").write_text(
        ",".join(f"column{n}" for n in range(20_000)) + "\n" + ",".join(["1"] * 20_000)
    )
    (source / "cell.csv").write_text(f"time,temp_air\n{'x' * 1_000_000},1\n")
    (source / "one.csv.gz").write_bytes(gzip.compress(b"a" * 10_000_000))
    found = prepare("weather", source, COLUMNS)
    assert len(found.rejected) == 3 and found.rows
    limited(found.rejected)


def small_files_without_end(folder: Path) -> None:
    folder.mkdir()
    (folder / "x.2bit").write_bytes(bytes.fromhex("4327411a00000000ffffffff00000000") + bytes(1000))
    (folder / "title.fa").write_bytes(b">" + b"x" * 3_000_000)
    (folder / "good.fa").write_text(">chr1\n" + "ACGTTGCA" * 50 + "\n")


def test_counts_are_checked_against_the_size(tmp_path: Path) -> None:
    small_files_without_end(tmp_path / "in")
    start = time.monotonic()
    found = prepare("dna", tmp_path / "in")
    assert time.monotonic() - start < 20 and len(found.rows) == 1
    assert "4,294,967,295 sequences" in found.rejected["x.2bit"] and "title" in found.rejected["title.fa"]


def shared(depth: int) -> object:
    value: object = [1.0, 2.0, 3.0]
    for _ in range(depth):
        value = [value, value]
    return value


def test_arrays_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "good.npy", (np.array([0, 0, 1]) + 0.1 * rng.normal(size=(1500, 3))).astype(np.float32))
    header = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<U0', 'fortran_order': False, 'shape': (500000000,), }".ljust(117)
        + b"\n"
    )
    with zipfile.ZipFile(folder / "texts.npz", "w") as archive:
        archive.writestr("X.npy", (folder / "good.npy").read_bytes())
        archive.writestr("y_labels.npy", header)
    with (folder / "shared.npy").open("wb") as file:
        descr = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
        file.write(b"\x93NUMPY\x01\x00v\x00" + descr.ljust(117) + b"\n")
        array = np.empty((), dtype=object)
        array[()] = {"X": shared(40)}
        pickle.dump(array, file)
    start = time.monotonic()
    found = prepare("wearables", folder, "modality.source_rate_hz=50", "modality.calibrate=false")
    assert time.monotonic() - start < 20 and len(found.rejected) == 2 and found.rows
    limited(found.rejected)


@pytest.mark.parametrize("beats", ["1000000000", "+".join(["1"] * 100_000), "1+" * 60 + "999"])
def test_metres_that_never_end(tmp_path: Path, beats: str) -> None:
    names = mutants.music()
    (tmp_path / "in").mkdir()
    xml = re.sub(rb"<beats>\d+</beats>", f"<beats>{beats}</beats>".encode(), names["musicxml"])
    assert xml != names["musicxml"]
    (tmp_path / "in" / "x.musicxml").write_bytes(xml)
    (tmp_path / "in" / "good.abc").write_bytes(names["abc"])
    start = time.monotonic()
    found = prepare("music", tmp_path / "in", "modality.min_notes=1")
    assert time.monotonic() - start < 20 and "beats" in found.rejected["x.musicxml"] and found.rows


def test_a_collection_of_tunes_takes_time_in_proportion(tmp_path: Path) -> None:
    seconds = {}
    for count in (100, 400):
        folder = tmp_path / f"in{count}"
        folder.mkdir()
        head = "% a book\n" + "%%scale 1\n" * 2000
        (folder / "book.abc").write_text(head + "".join(f"\nX:{n}\nK:C\nCDEF GABc|\n" for n in range(count)))
        write_abc(folder / "one.abc")
        start = time.monotonic()
        assert len(prepare("music", folder, "modality.min_notes=1").rows) == count + 1
        seconds[count] = time.monotonic() - start
    assert seconds[400] < 10 * max(seconds[100], 0.5)


def test_a_line_of_ten_thousand_notes(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_abc(tmp_path / "in" / "a.abc", "CDEF" * 2500 + "|")
    start = time.monotonic()
    assert sum(len(row["notes"]) for row in prepare("music", tmp_path / "in").rows) >= 10_000
    assert time.monotonic() - start < 20


def test_channels_of_very_unequal_length(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    line = ",".join(["1"] * 20_000) + ":" + ":".join(["1"] * 20_000)
    (tmp_path / "in" / "x.ts").write_text(f"@problemName x\n@classLabel false\n@data\n{line}\n")
    found = prepare("weather", tmp_path / "in", "modality.columns=[dim_0]")
    assert found.code == 2 and "very unequal length" in found.message


def test_cells_of_other_types(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    data = sound(folder).joinpath("good.wav").read_bytes()
    rows = [
        {"bytes": data, "path": "a.wav"},
        None,
        {"bytes": data, "path": "b.wav"},
        {"bytes": None, "path": None},
    ]
    pq.write_table(pa.table({"audio": rows, "text": ["x", None, "y", "z"]}), folder / "t.parquet")
    arrays = [
        {"array": np.sin(np.arange(8000) / 8).tolist(), "sampling_rate": 8000},
        {"array": None, "sampling_rate": 8000},
    ]
    pq.write_table(pa.table({"audio": arrays}), folder / "a.parquet")
    (folder / "stray.parquet").write_bytes(b"PAR1 and no more")
    found = prepare("speech", folder)
    assert len(found.rows) == 4 and len(found.rejected) == 4, found.rejected
    lists = tmp_path / "lists"
    hours(lists)
    frame = pd.DataFrame({"time": HOURS, "station": [["a"]] * 240, "temp_air": 1.0})
    pq.write_table(pa.Table.from_pandas(frame), lists / "l.parquet")
    found = prepare("weather", lists, COLUMNS, "modality.id_column=station")
    assert "list" in found.message or "array" in found.message


def test_every_file_is_in_one_of_the_lists(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = "".join(
        f"{n / 50},{x:.3f},{y:.3f},{1 + z:.3f},s1\n"
        for n, (x, y, z) in enumerate(0.1 * rng.normal(size=(1500, 3)))
    )
    (folder / "good.csv").write_text("time,x,y,z,subject\n" + rows)
    (folder / "header.csv").write_text("time,x,y,z,subject\n")
    assert "header.csv" in prepare("wearables", folder).rejected
    speech = sound(sound(tmp_path / "s", "a.wav"), "b.wav")
    (speech / "metadata.csv").write_text("file_name,text\na.wav,hello\n")
    assert "does not name it" in prepare("speech", speech).rejected["b.wav"]


@pytest.mark.parametrize("group", ["010", "no", "on", "1e5", "null", "~", "off", "08"])
def test_names_stay_what_is_typed(tmp_path: Path, group: str) -> None:
    (tmp_path / "in").mkdir()
    for name in (group, "8", "100000", "other", "false"):
        hours(tmp_path / "in" / name, "s.csv")
    for form in (f"valid_groups=[{group}]", f"valid_groups={group}", f"valid_groups=[{group},other]"):
        found = prepare("weather", tmp_path / "in", COLUMNS, form)
        assert found.split("valid") == ({group, "other"} if "other" in form else {group}), found.message


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no json": lambda folder: (folder / "manifest.json").write_text("{") and None,
    "a list": lambda folder: (folder / "manifest.json").write_text("[]") and None,
    "a negative length": lambda folder: edit(folder, lambda m: m["splits"]["train"].update(length=-1)),
    "an absurd count": lambda folder: edit(folder, lambda m: m["shards"][0].update(num_rows="many")),
    "another folder": lambda folder: edit(folder, lambda m: m["shards"][0].update(name="../x.parquet")),
    "no splits": lambda folder: edit(folder, lambda m: m.pop("splits")),
    "a shard cut short": lambda folder: next(folder.glob("shard-*")).write_bytes(b"PAR1") and None,
    "a shard gone": lambda folder: next(folder.glob("shard-*")).unlink(),
    "no numbers in a row": lambda folder: columns(folder, lambda t: replaced(t, "values", np.nan)),
    "negative lengths in a shard": lambda folder: columns(folder, lambda t: replaced(t, "length", -5)),
    "an absurd length in a shard": lambda folder: columns(folder, lambda t: replaced(t, "length", 2**50)),
    "lengths of another type": lambda folder: columns(folder, lambda t: replaced(t, "length", "long")),
    "a column gone": lambda folder: columns(folder, lambda t: t.drop_columns(["length"])),
}


def replaced(table: pa.Table, name: str, value: object) -> pa.Table:
    """A table in which all values of a column are something else."""
    old = table.column(name).to_pylist()
    new = [[[value] * len(step) for step in row] for row in old] if name == "values" else [value] * len(old)
    return table.set_column(table.column_names.index(name), name, pa.array(new))


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def columns(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    shard = next(folder.glob("shard-*"))
    pq.write_table(change(pq.read_table(shard)), shard)
    edit(folder, lambda m: m["shards"][0].update(num_bytes=shard.stat().st_size))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_prepared_folder_is_one_message(tmp_path: Path, name: str) -> None:
    source = hours(tmp_path / "in")
    out = tmp_path / "out"
    prepare("weather", source, COLUMNS, out=out)
    DAMAGES[name](out)
    said = seqssl(
        "train",
        "recipe=weather_w2vbert",
        f"data={out}",
        COLUMNS,
        "size=tiny",
        f"out={tmp_path / 'run'}",
        "train.num_updates=1",
    )
    assert said.code == 2 and "Traceback" not in said.said, said.said[-500:]


REFUSED: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "no header": ("wearables", lambda f: (f / "a.csv").write_text("".join(
        f"{n / 50},{0.1 * np.sin(n):.3f},{0.2 * np.cos(n / 3):.3f},{0.9 + 0.05 * np.sin(n / 7):.3f}\n" for n in range(1500))), []),
    "counts": ("wearables", lambda f: (f / "a.csv").write_text("time,x,y,z\n" + "".join(
        f"{n / 50},{6 * np.sin(n):.0f},{9 * np.cos(n / 3):.0f},{58 + 4 * np.sin(n / 7):.0f}\n" for n in range(1500))), []),
    "no rate": ("wearables", lambda f: np.save(f / "a.npy", np.random.default_rng(0).normal(size=(1500, 3)) * 0.1 + [0, 0, 1]), []),
    "fahrenheit": ("weather", lambda f: pd.DataFrame({"time": HOURS, "temp_air": 60 + np.arange(240) % 24}).to_csv(f / "a.csv", index=False), [COLUMNS]),
    "two ways": ("weather", lambda f: pd.DataFrame({"time": pd.date_range("2021-03-05", periods=240, freq="min").strftime("%d/%m/%Y %H:%M"),
        "temp_air": np.arange(240) % 24}).to_csv(f / "a.csv", index=False), [COLUMNS, "modality.freq=1min"]),
    "daily": ("weather", lambda f: pd.DataFrame({"time": pd.date_range("2020", periods=240), "temp_air": np.arange(240) % 24}).to_csv(f / "a.csv", index=False), [COLUMNS]),
    "sentinels": ("weather", lambda f: pd.DataFrame({"time": HOURS, "temp_air": np.where(np.arange(240) < 150, -999, np.arange(240) % 24)}).to_csv(f / "a.csv", index=False), [COLUMNS, "modality.min_observed=0.2"]),
    "stations": ("weather", lambda f: pd.DataFrame({"time": [*HOURS, *HOURS], "wo": ["a"] * 240 + ["b"] * 240, "temp_air": np.arange(480) % 24}).to_csv(f / "a.csv", index=False), [COLUMNS]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_that_a_refusal_names_helps(tmp_path: Path, name: str) -> None:
    """The first setting with a value that the message gives, used as told, makes the folder readable."""
    modality, make, settings = REFUSED[name]
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    found = prepare(modality, tmp_path / "in", *settings)
    assert found.code == 2, found.said
    told = re.findall(r"""modality\.[a-z_.]+=(?:"[^"]*"|\[[^\]]*\]|[^\s,;)'"]+)""", found.message)
    named = re.findall(r"set (modality\.[a-z_]+)", found.message)
    assert told or named, found.message
    setting = told[0].rstrip(".:") if told else f"{named[0]}=50"
    again = prepare(modality, tmp_path / "in", *settings, setting)
    assert again.code == 0, (setting, again.message)


@pytest.mark.parametrize(
    "place", ["a file", "below a file", "a name too long", "a file system that is read only"]
)
def test_an_out_that_cannot_be_written_is_one_message(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These hold for every user, root included."""
    source = hours(tmp_path / "in")
    (tmp_path / "file").touch()
    outs = {"a file": "file", "below a file": "file/x", "a name too long": "x" * 300}
    if place not in outs:

        def refuse(self: Path, *_: object, **__: object) -> None:
            raise OSError(errno.EROFS, "Read-only file system", str(self))

        monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    out = tmp_path / outs.get(place, "out")
    words = ("modality=weather", f"source={source}", COLUMNS, f"out={out}")
    said = seqssl("prepare", *words)
    assert said.code == 2 and "Check the path" in said.said and "Traceback" not in said.said, said.said[-400:]


def test_a_read_only_folder_is_one_message(tmp_path: Path) -> None:
    source = hours(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o500)
    if os.access(tmp_path / "out", os.W_OK):
        pytest.skip("this user may write everywhere")
    found = prepare("weather", source, COLUMNS, out=tmp_path / "out")
    assert found.code == 2 and "permission" in found.message.lower()


@pytest.mark.parametrize("name", ["[/h]", "[bold]x", "$\\frac$", "a_b^c", "{x}", "<b>"])
def test_names_that_look_like_markup(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    for number in range(3):
        (folder / f"{name}{number}".replace("/", "")).mkdir(parents=True)
        frame = pd.DataFrame({"time": HOURS, name: np.arange(240) % 24 + number, "b": np.arange(240) % 7})
        frame.to_csv(folder / f"{name}{number}".replace("/", "") / "s.csv", index=False)
    columns = f'modality.columns=["{name}",b]'.replace("\\", "\\\\")
    run = tmp_path / "run"
    words = (
        "recipe=weather_w2vbert",
        f"data={folder}",
        columns,
        "size=tiny",
        f"out={run}",
        "train.num_updates=2",
        "train.eval_every=2",
    )
    said = seqssl("train", *words)
    assert said.code == 0, said.said[-800:]
    said = seqssl("info", str(run))
    assert said.code == 0 and "Traceback" not in said.said, said.said[-800:]
