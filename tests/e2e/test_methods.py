"""Every method trains, on data that its recipe was not made for."""

from pathlib import Path

import pytest
from toy import TOY, write_letters, write_waves

from seqssl import cli
from seqssl.training.log import read_records

BODY = [
    *(
        text
        for text in TOY
        if not text.startswith(("quantizer", "encoder.conv", "encoder.ffn", "encoder.taps"))
    ),
    "encoder.block.ffn_dim=16",
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
    "wav2vec 2.0": (
        "base/wav2vec2",
        ["quantizer={codebook_size: 6, dim: 8}", "encoder.taps={output: 2}"],
        "contrastive",
    ),
    "HuBERT": (
        "base/hubert",
        [
            "encoder.taps={output: 2}",
            "targets={num_clusters: 6, tap: layer1}",
            "stages.first.targets.num_clusters=5",
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


FIXED = ("HuBERT", "BEST-RQ", "several codebooks")  # whose targets stand still while the model learns


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["waves", "letters"])
def test_a_method_learns_from_any_data(method: str, kind: str, tmp_path: Path) -> None:
    recipe, settings, term = METHODS[method]
    source = write_waves(tmp_path / "data") if kind == "waves" else write_letters(tmp_path / "data")
    own = [] if kind == "waves" else ["modality=toy:Letters"]
    arguments = [
        f"recipe={recipe}",
        "size=tiny",
        f"data={source}",
        f"out={tmp_path / 'run'}",
        *BODY,
        *settings,
        *own,
    ]
    if kind == "letters" and method in ("wav2vec 2.0", "w2v-Conformer", "nearest entries"):
        arguments.append(
            "targets=learned"
        )  # where inputs are ids, targets are those, unless one asks for others
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
