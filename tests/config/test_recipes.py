"""The recipes hold what they promise; for the paper's sizes, every value of the paper."""

from dataclasses import asdict
from typing import Any

import pytest

from seqssl import load_recipe
from seqssl.assembly import assemble, streams_of
from seqssl.config import compose, files
from seqssl.config.schema import DataConfig, TrainConfig
from seqssl.config.values import resolved
from seqssl.planning.cost import parts_of

RECIPES = {name: path for name, path in files.list_recipes().items() if not name.startswith("base/")}
SIZES = [(name, size) for name, path in RECIPES.items() for size in compose.sizes_of(path)]

PAPER: dict[str, Any] = {
    "masking": {"target": "span", "start_prob": 0.065, "span": 10, "fill": "noise", "fill_std": 0.1},
    "quantizer": {"target": "gumbel", "num_codebooks": 1, "codebook_size": 1024, "dim": 1024},
    "temperature": {"start": 2.0, "end": 0.1, "decay": 0.999995, "planned_updates": 400_000},
    "mixer": {"target": "attention", "num_heads": 8, "position": "none", "dropout": 0.0},
    "encoder": {
        "block": {
            "target": "conformer",
            "ffn_dim": 4096,
            "conv_kernel": 5,
            "conv_norm": "batch",
            "dropout": 0.0,
        },
        "dim": 1024,
        "stochastic_depth": 0.0,
        "feature_norm": None,
        "position": {"target": "conv", "kernel": 128, "groups": 16},
    },
    "objectives": {
        "contrastive": {
            "target": "contrastive",
            "tap": "contrastive",
            "weight": 1.0,
            "num_negatives": 100,
            "temperature": 0.1,
            "final_dim": None,
        },
        "diversity": {"target": "diversity", "weight": 0.1},
        "masked_prediction": {"target": "masked_prediction", "tap": "output", "weight": 1.0},
    },
    "optim": {
        "lr": 2e-3,
        "betas": (0.9, 0.98),
        "eps": 1e-6,
        "weight_decay": 0.0,
        "clip_norm": 20.0,
        "schedule": "noam",
        "warmup_updates": 25_000,
    },
    "train": {"num_updates": 400_000},
    "data": {"max_seconds": 32.0, "join_seconds": None},
}


def holds(actual: Any, expected: Any, where: str) -> None:
    if isinstance(expected, dict):
        for key, value in expected.items():
            holds(actual[key], value, f"{where}.{key}")
    else:
        assert actual == expected, where


@pytest.mark.parametrize(("size", "layers", "optimizer"), [("xl", 24, "adam"), ("xxl", 42, "adafactor")])
def test_speech_w2vbert_is_the_paper(size: str, layers: int, optimizer: str) -> None:
    config = load_recipe("speech_w2vbert", f"size={size}")
    holds(asdict(config), PAPER, size)
    assert config.encoder.num_layers == layers
    assert config.encoder.taps == {"contrastive": 12, "output": layers}
    assert config.optim.name == optimizer
    assert config.data.batch_seconds is not None
    assert config.data.batch_seconds * config.train.accumulate == 2048 * 32
    assert set(config.objectives) == set(PAPER["objectives"])


@pytest.mark.parametrize(
    ("size", "stack", "billions"), [("xl", 579_674_112, 0.6), ("xxl", 1_014_429_696, 1.0)]
)
def test_parameter_counts_are_the_papers(size: str, stack: int, billions: float) -> None:
    config = load_recipe("speech_w2vbert", f"size={size}")
    model = assemble(config, streams_of(config), "meta").of("")
    parts = {
        name: sum(p.numel() for p in part.parameters() if p.requires_grad)
        for name, part in parts_of(model, config.encoder.taps).items()
    }
    assert sum(count for name, count in parts.items() if "blocks" in name) == stack
    assert parts["encoder: blocks 1 to 12 (contrastive)"] == 12 * 24_153_088
    assert parts["targets"] == 640 * 1024 + 1024 + 1024 * 1024
    assert parts["input projection"] == 640 * 1024 + 1024
    assert parts["objectives"] == 1024 * 1024 + 1024
    assert parts["feature encoder"] == 9_568
    assert parts["encoder: position"] == pytest.approx(8.4e6, rel=0.01)
    assert round(sum(parts.values()) / 1e9, 1) == billions


@pytest.mark.parametrize(("recipe", "size"), SIZES)
def test_every_size_of_every_recipe_is_valid_and_trains_on_the_demo(recipe: str, size: str) -> None:
    config = load_recipe(recipe, f"size={size}")
    assert config.size == size
    assert all(part.data.demo for part in config.parts().values())
    assert load_recipe(recipe, f"size={size}") == config
    # A tenth of much data is more than is learned from between two evaluations.
    assert config.train.num_updates < 100_000 or config.train.eval_batches


@pytest.mark.parametrize(
    ("recipe", "settings", "seconds", "crop", "updates", "warmup"),
    [
        ("speech_wav2vec2", ["size=base"], 5760, 15.6, 400_000, 32_000),
        ("speech_wav2vec2", ["size=large"], 9600, 20, 600_000, 32_000),
        ("speech_data2vec", ["size=base"], 3840, 20, 400_000, 12_000),
        ("speech_data2vec", ["size=large"], 9600, 20, 600_000, 18_000),
        ("speech_dinosr", ["size=base"], 3840, 20, 400_000, 12_000),
        ("speech_wav2vec", ["size=base"], 1504, 9.4, 400_000, 500),
        ("speech_vq_wav2vec", ["size=base"], 300.8, 9.4, 400_000, 1000),
        ("speech_discretebert", ["size=base", "stage=quantizer"], 300.8, 9.4, 400_000, 1000),
    ],
)
def test_an_update_is_that_of_the_released_configuration(
    recipe: str, settings: list[str], seconds: float, crop: float, updates: int, warmup: int
) -> None:
    config = load_recipe(recipe, *settings)
    assert config.data.batch_seconds is not None
    assert config.data.batch_seconds * config.train.accumulate == pytest.approx(seconds)
    assert (config.data.max_seconds, config.train.num_updates) == (crop, updates)
    assert config.optim.warmup_updates == warmup


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_open_with_what_a_reader_asks_first(recipe: str) -> None:
    header = files.header(RECIPES[recipe])
    assert set(header) >= {"paper", "command", "expected", "hardware", "time", "verified"}
    assert f"recipe={recipe}" in header["command"]


def test_the_base_recipe_says_what_the_code_would_assume() -> None:
    """So that a run by Python without recipes and one by recipe do not differ."""
    base = resolved(files.read_recipe(files.find_recipe("base/run")))
    holds(asdict(DataConfig()), base["data"], "data")
    holds(asdict(TrainConfig()), base["train"], "train")


def test_recipes_of_a_modality_stay_short() -> None:
    for name, path in RECIPES.items():
        lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert len(lines) < 25, f"{name}: what is not about its modality belongs in recipes/base"


@pytest.mark.parametrize(("name", "size"), SIZES)
def test_weights_decay_apart_from_the_gradient(name: str, size: str) -> None:
    """As a part of it, Adam scales the decay up where gradients are small; fairseq's Adam does not."""
    optim = load_recipe(name, f"size={size}").optim
    assert optim.name != "adam" or optim.weight_decay == 0
