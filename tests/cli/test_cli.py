import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from seqssl import cli
from seqssl.cli import commands
from seqssl.cli.main import COMMANDS, USER_ERROR, parse, usage
from seqssl.errors import HealthHalt, Interrupted, UserError

NAMES = [command.name for command in COMMANDS]


def test_every_command_has_a_function_and_an_example_that_parses() -> None:
    for command in COMMANDS:
        module = importlib.import_module(f"seqssl.cli.{command.module}")
        assert callable(getattr(module, command.name))
        example = usage(command).rpartition("example: seqssl ")[2].split()
        assert example[0] == command.name
        parse(command, example[1:])


def test_help_needs_no_torch() -> None:
    """Nor do the commands that only read recipes, nor a misspelt key."""
    lines = [f"assert main(['{name}', '--help']) == 0" for name in NAMES]
    script = "\n".join(
        [
            "import sys",
            "from seqssl.cli import main",
            "assert main(['--help']) == 0",
            *lines,
            "assert main(['recipes']) == 0",
            "assert main(['config', 'recipe=speech_w2vbert', 'size=tiny', '--origin']) == 0",
            "assert main(['train', 'recipe=speech_w2vbert', 'size=tiny', 'quantizer.codebok_size=3']) == 2",
            "assert main(['plan', 'recipe=nothing']) == 2",
            "heavy = {'torch', 'pandas', 'matplotlib', 'sklearn', 'scipy'} & set(sys.modules)",
            "assert not heavy, heavy",
        ]
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "did you mean 'codebook_size'?" in result.stderr


def test_no_arguments_show_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in NAMES)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out[0].isdigit()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "did you mean 'train'?"),
        (["train"], "recipe missing"),
        (["train", "recpe=x"], "did you mean 'recipe'?"),
        (["train", "recipe=speech_w2vber"], "did you mean 'speech_w2vbert'?"),
        (["train", "recipe=speech_w2vbert", "size=tiny", "optim.lrr=1"], "did you mean 'lr'?"),
        (["train", "recipe=speech_w2vbert", "size=tny"], "did you mean 'tiny'?"),
        (["train", "speech_w2vbert"], "expected key=value"),
        (["plan", "recipe=x", "devces=2"], "did you mean 'devices'?"),
        (["plan", "recipe=speech_w2vbert", "devices=two"], "expected an integer"),
        (["plan", "recipe=speech_w2vbert", "devices=0"], "at least 1"),
        (["config", "recipe=speech_w2vbert", "--orign"], "did you mean '--origin'?"),
        (["config", "recipe=speech_w2vbert", "size=tiny", "--origin=yes"], "unknown key"),
        (["prepare", "modality=speech", "out=x"], "source missing"),
        (["prepare", "modality=speech", "source=x", "out=y", "valid_share=lots"], "expected a number"),
        (["prepare", "modality=speech", "modality.rate=1", "source=.", "out=y"], "rate = 1: unknown key"),
        (["prepare", "modality=spech", "source=.", "out=y"], "did you mean 'speech'?"),
        (["prepare", "modality=speech", "source=.", "out=y", "optim.lr=1"], "unknown key 'optim.lr'"),
        (["data", "fetch"], "list or get"),
        (["data", "get"], "which one?"),
        (["data", "get", "speach"], "speech"),
        (
            ["embed", "run=x", "source=.", "out=y", "pool=max"],
            "expected mean, statistics, thirds, last or none",
        ),
        (["embed", "run=nowhere", "source=.", "out=y"], "no file or folder nowhere"),
        (["probe", "run=nowhere"], "no file or folder nowhere"),
        (["doctor"], "run missing"),
        (["doctor", "nowhere"], "no file or folder nowhere"),
        (["check", "modality=speech", "source=nowhere"], "no file or folder nowhere"),
        (["info", "nowhere"], "there is no recipe 'nowhere'"),
        (["recipes", "extra"], "'extra' is not understood"),
    ],
)
def test_wrong_input_is_answered_in_words(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == USER_ERROR
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
    assert not captured.out


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("no such thing"), 2, "seqssl: no such thing"),
        (HealthHalt("collapse"), 3, "halted: collapse"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted("saved at 5"), 130, "saved at 5"),
        (RuntimeError("oops"), 1, "Traceback"),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    words: str,
) -> None:
    def fail(arguments: object) -> None:
        raise error

    monkeypatch.setattr(commands, "recipes", fail)
    assert cli.main(["recipes"]) == code
    assert words in capsys.readouterr().err


def test_config_shows_the_resolved_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "recipe=speech_w2vbert", "size=tiny", "seed=5"]) == 0
    assert "seed: 5\n" in capsys.readouterr().out
    assert cli.main(["config", "recipe=speech_w2vbert", "size=tiny", "seed=5", "--origin"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith("seed ")] == [["seed", "5", "command", "line"]]
    assert any(line.startswith("encoder.dim ") and line.endswith("size=tiny") for line in lines)


def test_the_size_that_auto_chose_is_told_beside_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("seqssl.planning.plan.has_gpu", lambda: False)
    assert cli.main(["config", "recipe=speech_w2vbert"]) == 0
    captured = capsys.readouterr()
    assert "size=auto chose" in captured.err
    assert "size=auto chose" not in captured.out


def test_recipes_shows_paper_and_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert "speech_w2vbert" in out
    assert "xl, xxl, base, small, tiny" in out
    assert "2108.06209" in out


def test_info_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "speech_w2vbert", "size=tiny"]) == 0
    out = capsys.readouterr().out
    assert "16000 Hz" in out
    assert "contrastive after block 2" in out


def test_train_goes_on_with_the_run_in_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["config", "recipe=speech_w2vbert", "size=tiny", f"out={tmp_path}"]) == 0
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    seen = []

    def note(name: str, overrides: list[str]) -> object:
        seen.append((name, overrides))
        raise UserError("enough")

    monkeypatch.setattr(commands, "resolved_recipe", note)
    assert cli.main(["train", f"out={tmp_path}", "health=halt"]) == 2
    assert seen == [(str(tmp_path), [f"out={tmp_path}", "health=halt"])]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m seqssl config recipe=speech_w2vbert size=tiny --origin | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.stdout.startswith("recipe")


LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not LARGE_PAGES.exists() or "[never]" in LARGE_PAGES.read_text(), reason="no large pages here"
)
@pytest.mark.parametrize(("chosen", "large"), [({}, True), ({"THP_MEM_ALLOC_ENABLE": "0"}, False)])
def test_large_tensors_come_in_large_pages_unless_the_user_says_no(
    chosen: dict[str, str], large: bool
) -> None:
    if "[always]" in LARGE_PAGES.read_text() and not large:
        pytest.skip("Linux takes them by itself")
    script = """
import resource
from seqssl.cli import main
main(["--version"])
import torch
def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.zeros(1)
before = pages()
torch.ones(2**24)
print((pages() - before) / (2**26 / resource.getpagesize()))
"""
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment | chosen, capture_output=True, text=True, check=True
    )
    share = float(done.stdout.split()[-1])  # of the small pages that the tensor would take
    assert (share < 0.9) is large, "in fragmented memory some are small"
