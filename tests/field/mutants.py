"""Damages small valid files of every modality and prepares them: none may end the work, hang it or vanish.

    python tests/field/mutants.py                     500 files a modality, seed 0
    python tests/field/mutants.py --files 50 music    fewer, of one modality

A mutant is a file with bytes flipped, cut out, doubled, made zero or replaced by large numbers. For each
modality, one `prepare` reads them all. It has to end with exit code 0 or 2 and without a trace, every file
has to be in the shards or in rejected.jsonl, and every reason has to be in our words, with those of a library
in brackets.
"""

import argparse
import gzip
import io
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "modalities" / "music"), str(HERE.parent / "modalities" / "dna")]

TIMEOUT_S = 900
SETTINGS = {
    "speech": [],
    "wearables": ["modality.source_rate_hz=50", "modality.calibrate=false"],
    "dna": [],
    "weather": ["modality.columns=[temp_air,relative_humidity]"],
    "music": ["modality.min_notes=1"],
}
# What a library says of its own workings; it tells nobody what is wrong with a file.
LIBRARY = re.compile(
    r"C error|tokenizing|operand|ufunc|NoneType|out of bounds|unpack|subscript|has no attribute|"
    r"object is not|keyword argument|dtype\(|invalid literal|could not convert|index \d+ is|list index|"
    r"Traceback",
    re.IGNORECASE,
)


def _parquet(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer)
    return buffer.getvalue()


def speech() -> dict[str, bytes]:
    """A second of sound in several containers."""
    sound = 0.3 * np.sin(2 * np.pi * 220 * np.arange(16_000) / 16_000)
    files = {}
    for suffix, form, kind in (
        ("wav", "WAV", "PCM_16"),
        ("flac", "FLAC", "PCM_16"),
        ("ogg", "OGG", "VORBIS"),
        ("mp3", "MP3", None),
    ):
        buffer = io.BytesIO()
        soundfile.write(buffer, sound, 16_000, format=form, subtype=kind)
        files[suffix] = buffer.getvalue()
    rows = [
        {"audio": {"bytes": files["wav"], "path": f"{n}.wav"}, "text": "a", "speaker": f"s{n}"}
        for n in range(2)
    ]
    files["parquet"] = _parquet(pd.DataFrame(rows))
    return files


def wearables() -> dict[str, bytes]:
    """Half a minute of movement as tables and arrays."""
    rng = np.random.default_rng(0)
    times = np.arange(1500) / 50
    values = np.stack([0.1 * np.sin(times), 0.2 * np.cos(3 * times), 0.95 + 0.05 * np.sin(times)], axis=1)
    table = pd.DataFrame(values + 0.01 * rng.normal(size=values.shape), columns=["x", "y", "z"]).round(4)
    table.insert(
        0, "time", (pd.Timestamp("2020-01-01") + pd.to_timedelta(times, unit="s")).strftime("%F %T.%f")
    )
    text = table.to_csv(index=False).encode()
    archive = io.BytesIO()
    np.savez(archive, X=table[["x", "y", "z"]].to_numpy(np.float32)[None], pid=np.array(["p1"]))
    array = io.BytesIO()
    np.save(array, table[["x", "y", "z"]].to_numpy(np.float32))
    return {
        "csv": text, "csv.gz": gzip.compress(text), "tsv": table.to_csv(index=False, sep="\t").encode(),
        "npy": array.getvalue(), "npz": archive.getvalue(), "parquet": _parquet(table),
    }  # fmt: skip


def dna() -> dict[str, bytes]:
    """A few sequences in every container."""
    from dna_files import two_bit

    rng = np.random.default_rng(0)
    names = {f"chr{n}": "".join(rng.choice([*"ACGT"], 300)) for n in range(3)}
    fasta = "".join(
        f">{name} of a test\n{letters[:150]}\n{letters[150:]}\n" for name, letters in names.items()
    ).encode()
    fastq = "".join(f"@{name}\n{letters}\n+\n{'I' * 300}\n" for name, letters in names.items()).encode()
    table = pd.DataFrame({"sequence": [*names.values()], "label": ["a", "b", "c"], "chrom": [*names]})
    return {
        "fa": fasta, "fa.gz": gzip.compress(fasta), "fastq": fastq, "2bit": two_bit(names),
        "csv": table.to_csv(index=False).encode(), "parquet": _parquet(table),
    }  # fmt: skip


def weather() -> dict[str, bytes]:
    """A week of hours as tables, a grid and an archive."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2020-01-01", periods=170, freq="h")
    table = pd.DataFrame(
        {"temp_air": 10 + 5 * rng.normal(size=170), "relative_humidity": 40 + 40 * rng.random(170)}
    ).round(2)
    table.insert(0, "time", times)
    text = table.to_csv(index=False).encode()
    files = {"csv": text, "csv.gz": gzip.compress(text), "parquet": _parquet(table)}
    german = table.assign(time=times.strftime("%d.%m.%Y %H:%M")).to_csv(index=False, sep=";", decimal=",")
    files["semicolon.csv"] = german.encode()
    with tempfile.TemporaryDirectory() as folder:
        table.set_index("time").to_xarray().to_netcdf(f"{folder}/x.nc", engine="h5netcdf")
        files["nc"] = Path(folder, "x.nc").read_bytes()
    return files


def music() -> dict[str, bytes]:
    """A tune in every notation."""
    from music_files import ABC, KERN, SCALE, TUNE, midi, music_xml

    xml = music_xml(SCALE)
    xml = xml if isinstance(xml, bytes) else xml.encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "META-INF/container.xml",
            '<container><rootfiles><rootfile full-path="s.xml"/></rootfiles></container>',
        )
        archive.writestr("s.xml", xml)
    return {
        "abc": ABC.encode(),
        "krn": KERN.encode(),
        "musicxml": xml,
        "mxl": packed.getvalue(),
        "mid": midi(TUNE),
    }


MODALITIES: dict[str, Callable[[], dict[str, bytes]]] = {
    "speech": speech, "wearables": wearables, "dna": dna, "weather": weather, "music": music,
}  # fmt: skip


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A copy with one to four damages."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not found:
            break
        at, size = int(rng.integers(len(found))), int(min(len(found), 2 ** rng.integers(0, 8)))
        kind = rng.integers(8)
        if kind == 0:
            found[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del found[at:]
        elif kind == 2:
            del found[at : at + size]
        elif kind == 3:
            found[at:at] = found[at : at + size]
        elif kind == 4:
            found[at : at + size] = bytes(min(size, len(found) - at))
        elif kind == 5:
            found[at : at + size] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
        elif kind == 6:
            found[at : at + 4] = b"\xff\xff\xff\x7f"
        else:
            found[at : at + 1] = [b"99999999999", b"-1", b"nan", b"\n", b'"', b",", b";", b"\0"][
                int(rng.integers(8))
            ]
    return bytes(found)


def write(folder: Path, modality: str, count: int, seed: int) -> list[str]:
    """So many mutants, beside the valid files that they come from; returns the names of all."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, [*MODALITIES].index(modality)])
    valid = MODALITIES[modality]()
    names = []
    for suffix, data in valid.items():
        names.append(f"good{len(names)}.{suffix.removeprefix('semicolon.')}")
        (folder / names[-1]).write_bytes(data)
    for number in range(count):
        suffix = [*valid][number % len(valid)]
        names.append(f"m{number:04d}.{suffix.removeprefix('semicolon.')}")
        (folder / names[-1]).write_bytes(damaged(valid[suffix], rng))
    return names


def faults(folder: Path, modality: str, names: list[str]) -> Iterator[str]:
    """Prepare a folder of mutants and tell what went wrong, each in a line."""
    import json

    import pyarrow.parquet as pq

    out = folder.parent / f"{folder.name}-out"
    command = [
        sys.executable,
        "-m",
        "seqssl",
        "prepare",
        f"modality={modality}",
        f"source={folder}",
        f"out={out}",
    ]
    try:
        done = subprocess.run(
            [*command, *SETTINGS[modality], "workers=1"], capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        yield f"no end in {TIMEOUT_S} s"
        return
    if done.returncode not in (0, 2) or "Traceback" in done.stderr:
        yield f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}"
        return
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_text("utf-8").splitlines()]
    keys = [
        key
        for shard in out.glob("*.parquet")
        for key in pq.read_table(shard, columns=["key"])["key"].to_pylist()
    ]
    told = {re.split(r"[#/]", text)[0] for text in [*keys, *(line["path"] for line in rejected)]}
    yield from (f"{name} is in no shard and not in rejected.jsonl" for name in names if name not in told)
    for line in rejected:
        outside = re.sub(r"\(.*\)", "", line["reason"])
        if not outside.strip() or LIBRARY.search(outside):
            yield f"{line['path']}: a library's words: {line['reason']}"
        if len(line["reason"]) > 200 or not line["reason"].isprintable():
            yield f"{line['path']}: {len(line['reason'])} characters, or some that cannot be printed"
    print(f"{modality}: {len(names)} files, {len(keys)} rows, {len(rejected)} rejected", flush=True)


def main() -> int:
    """Exit code 1 where anything went wrong."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("modalities", nargs="*", default=[*MODALITIES])
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        for modality in options.modalities or MODALITIES:
            start = time.monotonic()
            folder = Path(scratch, modality)
            names = write(folder, modality, options.files, options.seed)
            for fault in faults(folder, modality, names):
                wrong += 1
                print(f"  {modality}: {fault}", flush=True)
            print(f"  {time.monotonic() - start:.0f} s", flush=True)
    print(f"{wrong} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
