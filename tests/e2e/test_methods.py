"""Every method trains, on data that its recipe was not made for."""

from pathlib import Path

import pytest
from toy import TOY, write_letters, write_waves

from seqssl import cli
from seqssl.config.files import list_recipes
from seqssl.planning.plan import resolve
from seqssl.training.log import read_records

BODY = [
    *(
        text
        for text in TOY
        if not text.startswith(("quantizer", "encoder.conv", "encoder.ffn", "encoder.taps"))
    ),
    "feature_encoder=null",
    "train.num_updates=30",
    "train.log_every=10",
    "optim.lr=0.01",
]
LINEAR = [
    "quantizer={target: linear, dim: 16}",
    "objectives.diversity=null",
    "objectives.masked_prediction=null",
]
METHODS = {
    "wav2vec": ("base/wav2vec", ["encoder.taps={output: 2}"], "future_prediction"),
    "wav2vec 2.0": (
        "base/wav2vec2",
        ["quantizer={codebook_size: 6, dim: 8}", "encoder.taps={output: 2}"],
        "contrastive",
    ),
    "HuBERT": (
        "base/hubert",
        [
            "encoder.taps={output: 2}",
            "targets={num_clusters: 6, tap: auto}",
            "stages.first.targets.num_clusters=5",
            "stages.first.train.num_updates=10",
        ],
        "masked_prediction",
    ),
    "data2vec": (
        "base/data2vec",
        [
            "encoder.taps={output: 2}",
            "targets={layers: 2, rise: 20}",
            "encoder.position={kernel: 3, groups: 2}",
        ],
        "regression",
    ),
    "DiscreteBERT": (
        "base/discretebert",
        [
            "encoder.taps={output: 2}",
            "feature_encoder={dim: 16}",
            "stages.quantizer.quantizer={codebook_size: 6, dim: 8}",
            "stages.quantizer.encoder={dim: 16, num_layers: 2, taps: {output: 2}}",
            "stages.quantizer.train.num_updates=10",
        ],
        "masked_prediction",
    ),
    "DinoSR": (
        "base/dinosr",
        [
            "encoder.taps={output: 2}",
            "targets={layers: 2, rise: 20, num_clusters: 7, revive: 0.1}",
            "encoder.position={kernel: 3, groups: 2}",
        ],
        "masked_prediction",
    ),
    "masked patches": (
        "base/masked_patches",
        ["encoder.taps={output: 2}"],
        "regression",
    ),
    "masked symbols": (
        "base/masked_symbols",
        ["encoder.taps={output: 2}"],
        "masked_prediction",
    ),
    "masked spectra": (
        "base/masked_patches",
        ["encoder.taps={output: 2}", "targets={log_spectrum: true}"],
        "regression",
    ),
    "next latent": (
        "base/next_latent",
        ["encoder.taps={output: 2}", "objectives.next_latent={hidden_dim: 32, final_dim: 8}"],
        "next_latent",
    ),
    "nearest entries": (
        "base/w2vbert",
        [
            "quantizer={target: nearest, codebook_size: 5, dim: 16, decay: 0.9, revive: 0.1}",
            "objectives.commitment={target: commitment}",
            "objectives.diversity=null",
            "encoder.taps={contrastive: 1, output: 2}",
        ],
        "masked_prediction",
    ),
    "BEST-RQ": (
        "base/bestrq",
        ["quantizer.codebook_size=9", "encoder.taps={output: 2}"],
        "masked_prediction",
    ),
    "several codebooks": (
        "base/bestrq",
        ["quantizer={codebook_size: 9, num_codebooks: 3}", "encoder.taps={output: 2}"],
        "masked_prediction",
    ),
    "w2v-Conformer": (
        "base/w2vbert",
        [*LINEAR, "objectives.contrastive.tap=output", "encoder.taps={output: 2}"],
        "contrastive",
    ),
}


# Whose targets stand still while the model learns.
FIXED = (
    "HuBERT",
    "DiscreteBERT",
    "BEST-RQ",
    "several codebooks",
    "masked patches",
    "masked spectra",
    "masked symbols",
)
REFUSED = {  # what a method says of inputs that it is not for
    ("masked patches", "letters"): "ids are no numbers to reconstruct",
    ("masked spectra", "letters"): "ids are no numbers to reconstruct",
    ("masked symbols", "waves"): "targets=symbols needs inputs that are ids",
}
AHEAD = ("wav2vec", "next latent")  # which hide nothing, and see nothing that comes
HIDING = ("masking", "encoder.position")
APART = {  # feature encoders whose frames share no steps
    "waves": "{target: patch, dim: 12, patch: 4}",
    "letters": "{target: token, dim: 12, kernel: 1, stride: 2}",
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["waves", "letters"])
def test_a_method_learns_from_any_data(
    method: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, settings, term = METHODS[method]
    source = write_waves(tmp_path / "data") if kind == "waves" else write_letters(tmp_path / "data")
    own = [] if kind == "waves" else ["modality=toy:Letters"]
    arguments = [
        f"recipe={recipe}",
        "size=tiny",
        f"data={source}",
        f"out={tmp_path / 'run'}",
        *(text for text in BODY if method not in AHEAD or not text.startswith(HIDING)),
        *([] if method == "wav2vec" else ["encoder.block.ffn_dim=16"]),
        *settings,
        *own,
    ]
    if kind == "letters" and method in ("wav2vec 2.0", "w2v-Conformer", "nearest entries"):
        arguments.append(
            "targets=learned"
        )  # where inputs are ids, targets are those, unless one asks for others
    if (said := REFUSED.get((method, kind))) is not None:
        assert cli.main(["train", *arguments]) == 2
        assert said in capsys.readouterr().err
        return
    if method == "next latent":
        assert cli.main(["train", *arguments]) == 2
        assert "frames of this feature encoder read steps of one another" in capsys.readouterr().err
        arguments.append(f"feature_encoder={APART[kind]}")
    assert cli.main(["train", *arguments]) == 0
    told = [r for r in read_records(tmp_path / "run" / "metrics.jsonl") if r.get("kind") == "train"]
    losses = [record[f"loss/{term}"] for record in told]
    assert all(0 < loss < 20 for loss in losses), losses
    if method in FIXED:
        assert losses[-1] < losses[0]
    if method == "w2v-Conformer":
        assert losses[-1] > 0.5, "without codes, a distractor is any other frame: the task is never void"
    assert cli.main(["doctor", str(tmp_path / "run")]) in (0, 3)
    assert (tmp_path / "run" / "report.html").exists()


SPEECH = sorted(name for name in list_recipes() if name.startswith("speech_"))


@pytest.mark.parametrize("recipe", SPEECH)
def test_a_recipe_for_speech_reads_other_data_or_says_what_to_choose(
    recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe as it is, on two channels at 10 Hz."""
    stages = resolve(recipe, "size=tiny").stages
    arguments = [
        f"recipe={recipe}", "size=tiny", "modality=toy:Toy", f"data={write_waves(tmp_path / 'data')}",
        f"out={tmp_path / 'run'}", "data.split_by=record", "data.valid_share=0.2", "train.num_updates=2",
        "train.precision=float32", *(f"stages.{stage}.train.num_updates=2" for stage in stages),
    ]  # fmt: skip
    if recipe in ("speech_hubert", "speech_reclusters"):
        assert cli.main(["train", *arguments]) == 2, "179 frames are too few"
        assert "200 clusters need as many frames" in capsys.readouterr().err
        arguments.append("targets.num_clusters=20")
    code = cli.main(["train", *arguments])
    if recipe == "speech_w2vbert2":
        assert code == 2 and "stacked_mel reads one channel" in capsys.readouterr().err
        code = cli.main(["train", *arguments, "feature_encoder=null"])
    assert code == 0
    assert (tmp_path / "run" / "report.html").exists()
