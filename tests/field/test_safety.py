"""Data, runs and recipes are a stranger's: no code of theirs runs, nothing outside of them changes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from field import seqssl, write_abc
from toy import toy_config

from seqssl import Rejected, UserError
from seqssl.data.files import list_files, locked, write_atomic
from seqssl.data.wording import MAX_REASON, printable, shortened
from seqssl.runs.train import train

EVIL = "open('RAN', 'a').write(__name__ + ' ')\n"
RECIPE = "extends: [base/run, base/w2vbert]\nmodality: {target: 'mod:Evil'}\ndata: {source: x}\n"
ANNOTATED = """class Evil:
    def __init__(self, *, x: [c for c in ().__class__.__base__.__subclasses__()
        if c.__name__ == "_wrap_close"][0].__init__.__globals__["system"]("touch RAN") = 0): ...
raise SystemExit("imported")
"""


def in_folder(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command as a new process that works in a folder, as imports depend on it."""
    command = [sys.executable, "-c", "import sys; sys.path.remove(''); from seqssl.cli.main import main; "]
    command[-1] += "sys.exit(main(sys.argv[1:]))"
    env = {**os.environ, "SEQSSL_CACHE": str(folder.parent / "cache"), **variables}
    return subprocess.run(
        [*command, *words], cwd=folder, env=env, capture_output=True, text=True, timeout=120
    )


def test_a_data_folder_gives_no_code(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_abc(data / "a.abc")
    for module in ("symusic", "music21", "rich", "numpy", "pyarrow", "modalities", "yaml"):
        (data / f"{module}.py").write_text(EVIL)
    done = in_folder(data, "prepare", "modality=music", "modality.min_notes=1", "source=.", "out=../OUT")
    assert done.returncode == 0, done.stderr
    assert not (data / "RAN").exists(), (data / "RAN").read_text()


def test_a_run_folder_gives_no_code_even_where_its_configuration_asks_for_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(RECIPE)
    (run / "metrics.jsonl").write_text("")
    for name in ("rich", "mod"):
        (run / f"{name}.py").write_text(EVIL)
    for command in (["info", "."], ["doctor", "."]):
        assert in_folder(run, *command).returncode in (0, 2, 3)
    assert not (run / "RAN").exists()


def test_a_class_of_the_users_own_is_found_in_the_current_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_abc(data / "a.abc")
    (data / "own.py").write_text("from modalities.music import Music\nclass Own(Music): ...\n")
    done = in_folder(data, "prepare", "modality=own:Own", "source=.", "out=../OUT")
    assert done.returncode == 0, done.stderr


def test_reading_a_recipe_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "mod.py").write_text(ANNOTATED)
    for command in (["config", "recipe=r.yaml"], ["doctor", "r.yaml"], ["recipes"]):
        done = in_folder(tmp_path, *command)
        assert "imported" not in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "RAN").exists()


def test_a_recipe_reads_no_environment(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("extends: speech_w2vbert\nout: ${oc.env:SECRET}\n")
    done = in_folder(tmp_path, "config", "recipe=r.yaml", SECRET="hidden")
    assert done.returncode == 2 and "takes nothing from outside" in done.stderr
    assert "hidden" not in done.stdout + done.stderr


def links(folder: Path, victims: Path, *names: str) -> list[Path]:
    """Links in a folder to files outside, which hold a text that must stay."""
    folder.mkdir(parents=True, exist_ok=True)
    victims.mkdir()
    for name in names:
        (victims / name).write_text("mine")
        (folder / name).symlink_to(victims / name)
    return [victims / name for name in names]


def test_prepare_writes_nothing_through_links(tmp_path: Path) -> None:
    write_abc(tmp_path / "raw" / "a.abc")
    names = (".lock", "rejected.jsonl.tmp", "rejected.jsonl", "quality.jsonl.tmp", "manifest.json.tmp")
    victims = links(tmp_path / "out", tmp_path / "victims", *names, "shard-00000.tmp")
    words = (
        "modality=music",
        "modality.min_notes=1",
        f"source={tmp_path / 'raw'}",
        f"out={tmp_path / 'out'}",
    )
    assert seqssl("prepare", *words).code == 0
    assert all(path.read_text() == "mine" for path in victims)


def test_training_writes_nothing_through_links(waves: Path, tmp_path: Path) -> None:
    config = toy_config(waves, tmp_path / "run", "train.num_updates=3")
    train(config)
    names = (".lock", "config.yaml.tmp", "metrics.partial", "metrics.jsonl", "report.html.tmp")
    for name in (".lock", "metrics.jsonl"):
        (tmp_path / "run" / name).unlink()
    victims = links(tmp_path / "run", tmp_path / "victims", *names, "catalogue.json.tmp")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000003")
    train(config)
    assert all(path.read_text() == "mine" for path in victims)


def test_a_linked_folder_in_a_run_is_refused(waves: Path, tmp_path: Path) -> None:
    config = toy_config(waves, tmp_path / "run", "train.num_updates=2")
    train(config)
    shutil.move(tmp_path / "run" / "checkpoints", tmp_path / "elsewhere")
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="nothing is written through links"):
        train(config)


def test_a_lock_keeps_what_its_link_leads_to(tmp_path: Path) -> None:
    (victim,) = links(tmp_path / "out", tmp_path / "victims", ".lock")
    with locked(tmp_path / "out" / ".lock"):
        write_atomic(tmp_path / "out" / "x", "text")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", ["caf\udce9.wav", "a\x1b[31m.wav", "a\nb", "\ud800", "ok é"])
def test_names_and_reasons_can_be_printed_and_stored(name: str) -> None:
    for text in (printable(name), Rejected(name, name).path, Rejected(name, f"it is {name}").reason):
        assert text.isprintable() and text.encode("utf-8") and json.dumps(text)


def test_a_reason_is_cut_in_the_middle_so_that_its_advice_stays() -> None:
    long = f"the first line is {'x' * 5_000_000}: set modality.skip_lines=2"
    assert len(shortened(long)) <= MAX_REASON
    assert shortened(long).startswith("the first line is xxx") and shortened(long).endswith(
        "set modality.skip_lines=2"
    )
    assert shortened("short") == "short"


def test_folders_may_be_nested_by_the_thousand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1300):
        os.mkdir("d")
        os.chdir("d")
    Path("x.wav").touch()
    assert len(list_files(tmp_path)) == 1
    Path("x.wav").unlink()
    for _ in range(1300):  # shutil.rmtree calls itself for every level
        os.chdir("..")
        os.rmdir("d")
