"""One encoder over two kinds of data: waves of floats and letters."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from test_runs import Killed, comparable, die_at
from toy import TOY, Letters, write_letters

import seqssl
from seqssl import UserError, cli, doctor, load_recipe
from seqssl.assembly import build_joint_model
from seqssl.config.schema import RunConfig

RECIPE = """
extends: [base/run, base/w2vbert]
streams:
  waves: {{recipe: waves, weight: 2, data: {{source: {waves}}}}}
  letters: {{recipe: letters, data: {{source: {letters}}}}}
"""
SHARED = [entry for entry in TOY if not entry.startswith(("modality", "data", "masking", "quantizer"))]
WAVES = """
extends: [base/run, base/w2vbert]
modality: toy:Toy
input_norm: channel
quantizer: {codebook_size: 8}
sizes: {tiny: {quantizer: {codebook_size: 8}}}
data: {split_by: record, valid_share: 0.2, batch_frames: 160}
masking: {start_prob: 0.1, span: 3}
"""
LETTERS = """
extends: [base/run, base/w2vbert]
modality: toy:Letters
targets: both
data: {split_by: record, valid_share: 0.2, batch_frames: 200}
masking: {start_prob: 0.1, span: 2}
sizes:
  tiny: {masking: {span: 3}}
"""


@pytest.fixture
def recipe(tmp_path: Path, waves: Path) -> Path:
    letters = write_letters(tmp_path / "letters_data")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "waves.yaml").write_text(WAVES)
    (tmp_path / "recipes" / "letters.yaml").write_text(LETTERS)
    path = tmp_path / "joint.yaml"
    path.write_text(RECIPE.format(waves=waves, letters=letters))
    return path


def config_of(recipe: Path, out: Path, *overrides: str, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.chdir(recipe.parent)
    return load_recipe(recipe, "size=tiny", f"out={out}", *SHARED, *overrides)


def test_streams_take_what_is_theirs_and_share_the_rest(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(recipe, tmp_path / "run", "streams.waves.masking.span=4", monkeypatch=monkeypatch)
    parts = config.parts()
    assert list(parts) == ["waves", "letters"]
    assert parts["waves"].masking["span"] == 4
    assert parts["letters"].masking["span"] == 3  # of its own tiny size
    assert parts["letters"].targets == {"target": "both"}
    assert parts["waves"].input_norm == {"target": "channel"}
    assert parts["waves"].quantizer["dim"] == config.encoder.dim
    assert config.streams["waves"].weight == 2 and config.streams["letters"].weight == 1
    model = build_joint_model(config)
    assert model.of("waves").encoder is model.of("letters").encoder
    assert model.of("letters").targets.codebook_sizes == (128, 16)


def test_a_joint_run_trains_resumes_and_is_opened(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(name: str) -> seqssl.Run:
        config = config_of(recipe, tmp_path / name, monkeypatch=monkeypatch)
        return seqssl.train(config, say=lambda text: None)

    unbroken = train("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        die_at(7, patch)
        with pytest.raises(Killed):
            train("broken")
    resumed = train("broken")
    assert comparable(resumed.out) == comparable(unbroken.out)
    last = comparable(unbroken.out)[-1]
    for stream in ("waves", "letters"):
        assert 0 <= last[f"{stream}/contrastive/accuracy"] <= 1
        assert last[f"{stream}/masked_prediction/trivial"] > 0
        assert last[f"{stream}/perplexity/size"] in (8, 128)
    assert last["letters/symbols/bits"] > 0 and "waves/symbols/bits" not in last
    assert last["letters/symbols/markov_bits"] > 0

    weights = load_file(unbroken.out / "checkpoints" / "step-00000012" / "model.safetensors")
    assert len({name.split("encoder.blocks")[1] for name in weights if "encoder.blocks" in name}) == sum(
        "encoder.blocks" in name for name in weights
    ), "the shared encoder is stored once"
    saved = yaml.safe_load((unbroken.out / "config.yaml").read_text())
    assert set(saved["provenance"]["streams"]) == {"waves", "letters"}
    again = load_recipe(unbroken.out)
    assert again == config_of(recipe, unbroken.out, monkeypatch=monkeypatch) or again.streams

    waves = seqssl.load(unbroken.out, stream="waves")
    letters = seqssl.load(unbroken.out, stream="letters")
    assert waves.embed([np.zeros((30, 2), np.float32)]).shape == (1, 16)
    assert letters.embed([np.arange(30) % 4]).shape == (1, 16)
    scaling = waves.model.input_norm
    assert scaling is not None and float(scaling.std[0]) != 1.0
    with pytest.raises(UserError, match="stream=NAME with one of waves, letters"):
        seqssl.load(unbroken.out)
    with pytest.raises(UserError, match="one of waves, letters"):
        seqssl.load(unbroken.out, stream="letter")

    report = doctor.examine(unbroken.out)
    subjects = {reading.subject for reading in report.healthy} | {f.subject for f in report.findings}
    assert any(subject.startswith("waves: ") for subject in subjects)
    page = (unbroken.out / "report.html").read_text()
    assert "Curves: letters" in page and "its codes: waves" in page
    assert cli.main(["info", str(unbroken.out)]) == 0
    shown = capsys.readouterr().out
    assert "Input of waves" in shown and "Input of letters" in shown and "mean" in shown
    assert cli.main(["plan", f"recipe={unbroken.out}"]) == 0
    out = tmp_path / "x.parquet"
    source = str(tmp_path / "letters_data")
    assert cli.main(["embed", f"run={unbroken.out}", f"source={source}", f"out={out}"]) == 2
    assert "stream" in capsys.readouterr().err
    assert cli.main(["embed", f"run={unbroken.out}", f"source={source}", f"out={out}", "stream=letters"]) == 0
    assert cli.main(["probe", f"run={unbroken.out}", "stream=letters"]) == 0
    assert "held-out split" in json.dumps(json.loads((unbroken.out / "probe-letters.json").read_text()))


def test_one_stream_does_not_touch_the_front_end_of_another(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build_joint_model(config_of(recipe, tmp_path / "run", monkeypatch=monkeypatch))
    ids = torch.randint(4, (3, 40))
    batch = seqssl.Batch(ids, torch.tensor([40, 30, 20]), stream="letters")
    frames = model.draw_mask(batch, torch.Generator().manual_seed(0))
    output = model(batch, frames, temperature=1.0, generator=torch.Generator().manual_seed(1))
    torch.stack([*output.terms.values()]).sum().backward()
    touched = {name.split(".")[1] for name, p in model.named_parameters() if p.grad is not None}
    names = [name for name, p in model.named_parameters() if p.grad is not None and ".waves." in name]
    assert touched == {"waves", "letters"}  # the shared encoder goes by its first name
    assert names and all(".encoder." in name for name in names)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("streams.waves.weight=0", "streams.waves.weight = 0.0: must be above 0"),
        ("streams.waves.masking.span=many", "streams.waves.masking.span = many: expected an integer"),
        ("streams.waves.data.batch_frames=null", "streams.waves.data.batch_seconds"),
        ("streams.waves.targets=all", "streams.waves.targets.target = all: there is no targets named 'all'"),
        ("streams.waves.objectives.contrastive.tap=third", "streams.waves.objectives.contrastive.tap"),
        ("streams.waves.color=red", "streams.waves.color = red: unknown key"),
        ("streams.new={weight: 1}", "streams.new.modality"),
        ("streams.waves=5", "streams.waves = 5: expected a recipe's name"),
        ("streams.waves.recipe=nope", "there is no recipe 'nope'"),
        ("streams.waves.weight=.inf", "streams.waves.weight = inf: must be a finite number"),
        ("data=elsewhere", "data: a joint run has one for each kind of data: say streams.NAME.data"),
        ("masking.span=3", "masking: a joint run has one for each"),
    ],
)
def test_mistakes_in_a_stream_are_named(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        config_of(recipe, tmp_path / "run", override, monkeypatch=monkeypatch)
    assert words in str(caught.value)


def test_letters_alone_are_their_own_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a word about it: ids are predicted, masked before the feature encoder, diversity is idle."""
    letters = write_letters(tmp_path / "letters_data")
    overrides = ["modality=toy:Letters" if e.startswith("modality") else e for e in TOY]
    config = load_recipe(
        "base/w2vbert", "size=tiny", f"data={letters}", f"out={tmp_path / 'run'}", *overrides
    )
    run = seqssl.train(config, say=lambda text: None)
    assert run.metrics["symbols/bits"] > 0 and "perplexity/hard_0" not in run.metrics
    assert run.metrics["loss/diversity"] == 0
    encoder = seqssl.load(run.out)
    assert encoder.model.mask_input and encoder.model.targets.ids_per_code == 2
    assert Letters().spec == encoder.spec
    for target in ("symbols", "both"):
        with pytest.raises(UserError, match=f"targets={target} needs inputs that are ids"):
            seqssl.build_model(load_recipe("base/w2vbert", "size=tiny", "data=x", *TOY, f"targets={target}"))
    blind = ("mask_at=input", "feature_encoder=seqssl.model.features:Conv2dSubsampling")
    with pytest.raises(UserError, match="Conv2dSubsampling does not read `observed`"):
        seqssl.build_model(load_recipe("base/w2vbert", "size=tiny", "data=x", *TOY, *blind))
    with pytest.raises(UserError, match="ids cannot be scaled"):
        seqssl.build_model(
            load_recipe("base/w2vbert", "size=tiny", "data=x", *overrides, "input_norm=channel")
        )


def test_a_stream_can_be_added_and_exchanged_by_name(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(
        recipe, tmp_path / "run", "streams.more=letters", "streams.more.data.source=x",
        "streams.waves=null", monkeypatch=monkeypatch,
    )  # fmt: skip
    assert list(config.streams) == ["letters", "more"]
    assert config.streams["more"].targets["target"] == "both" and config.streams["more"].masking["span"] == 3
    with pytest.raises(UserError, match=r"streams.more.recipe = .*: is a joint run itself"):
        config_of(recipe, tmp_path / "run", f"streams.more={recipe}", monkeypatch=monkeypatch)
