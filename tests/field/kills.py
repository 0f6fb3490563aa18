"""Kills `prepare` and `train` at random moments, again and again; what they make in the end has to be the same.

    python tests/field/kills.py            25 kills of each, seed 0 (about five minutes on two cores)
    python tests/field/kills.py --kills 5

Each command is killed by SIGKILL so many times and then left alone; its files are compared with those of a run
that nobody disturbed: shards, manifest and rejections byte for byte, the last checkpoint's weights byte for
byte, and the losses of metrics.jsonl.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
SHARD_BYTES = 60_000  # so that shards are finished between two kills
RUN = (
    "import sys; import seqssl.data.writing as w; w.SHARD_BYTES = {bytes}; "
    "from seqssl.cli.main import main; sys.exit(main(sys.argv[1:]))"
)


def write_waves(folder: Path) -> None:
    """Recordings of three sensors, some of them damaged."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(400):
        walk = np.array([0, 0, 0.95]) + 0.1 * rng.normal(size=(1000, 3))
        (folder / f"p{number:03d}.csv").write_text(
            "time,x,y,z\n" + "".join(f"{n / 50:.2f},{x:.3f},{y:.3f},{z:.3f}\n" for n, (x, y, z) in enumerate(walk))
            if number % 10 else "time,x,y,z\n"
        )  # fmt: skip


def run(words: list[str], *, kill_after: float | None = None) -> bool:
    """Whether the command came to its end; False where it was killed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    code = RUN.format(bytes=SHARD_BYTES)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {said.decode()[-500:]}")
    return True


def result_of(folder: Path) -> dict[str, str]:
    """What has to be the same, by name: digests of files, and the losses."""
    names = [
        *folder.glob("shard-*.parquet"),
        *folder.glob("*.jsonl"),
        *folder.glob("checkpoints/step-*/*.safetensors"),
    ]
    found = {}
    for path in sorted(names):
        name = path.relative_to(folder).as_posix()
        if path.name == "metrics.jsonl":
            records = [json.loads(line) for line in path.read_text().splitlines()]
            losses = [
                (r["kind"], r["step"], r.get("loss")) for r in records if r["kind"] in ("train", "valid")
            ]
            found[name] = str(losses)
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    if (folder / "manifest.json").exists():
        manifest = json.loads((folder / "manifest.json").read_text())
        found["manifest.json"] = json.dumps(manifest, sort_keys=True)
    return found


def compare(name: str, words: list[str], folder: Path, kills: int, draw: random.Random) -> bool:
    """Kill a command so many times, and compare with one that was left alone."""
    calm, disturbed = folder / f"{name}-calm", folder / f"{name}-killed"
    start = time.monotonic()
    run([*words, f"out={calm}"])
    seconds = time.monotonic() - start
    killed = ended = 0
    while killed < kills:
        if run([*words, f"out={disturbed}"], kill_after=draw.uniform(0.2, 1.0) * seconds):
            ended += 1
            subprocess.run(["rm", "-rf", str(disturbed)], check=True)
        else:
            killed += 1
    run([*words, f"out={disturbed}"])
    mine, theirs = result_of(disturbed), result_of(calm)
    wrong = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
    print(f"{name}: {killed} kills ({ended} came too late), {seconds:.1f} s undisturbed, {len(theirs)} results compared: "
          f"{'all the same' if not wrong else 'DIFFERENT: ' + ', '.join(wrong)}")  # fmt: skip
    return not wrong


def main() -> int:
    """Exit code 1 where anything differs."""
    from toy import toy_arguments
    from toy import write_waves as write_toy

    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--kills", type=int, default=25)
    options = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["SEQSSL_CACHE"] = str(folder / "cache")
        write_waves(folder / "raw")
        write_toy(folder / "toy")
        prepare = ["prepare", "modality=wearables", f"source={folder / 'raw'}", "workers=1"]
        train = [
            word
            for word in toy_arguments(folder / "toy", folder, "train.num_updates=120")
            if "out=" not in word
        ]
        same = [
            compare("prepare", prepare, folder, options.kills, draw),
            compare("train", ["train", *train], folder, options.kills, draw),
        ]
    return 0 if all(same) else 1


if __name__ == "__main__":
    sys.exit(main())
