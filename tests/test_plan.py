import io
from typing import Any

import pytest
import torch

from seqssl import Frames, load_recipe
from seqssl.assembly import build_encoder
from seqssl.config.schema import RunConfig
from seqssl.errors import UserError
from seqssl.planning import cost, hardware, plan


def tiny(*overrides: str) -> RunConfig:
    return load_recipe("speech_w2vbert", "size=tiny", *overrides)


def total_bytes(config: RunConfig) -> int:
    return cost.cost_of(config).memory_bytes


def bytes_kept(config: RunConfig, num_blocks: int, frames: int, rows: int, bfloat16: bool) -> int:
    """Bytes that autograd really keeps for some blocks, weights left out."""
    encoder = build_encoder(config.encoder, config.mixer, checkpoint_activations=False).train()
    weights = {p.untyped_storage()._cdata for p in encoder.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage()._cdata not in weights:
            kept[x.untyped_storage()._cdata] = x
        return x

    x = torch.randn(rows, frames, config.encoder.dim, requires_grad=True)
    known = Frames(torch.ones(rows, frames, dtype=torch.bool))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), autocast:
        for block in encoder.blocks[:num_blocks]:
            x = block(x, known)
    copies = sum(p.numel() for p in encoder.blocks[:num_blocks].parameters() if p.ndim > 1) if bfloat16 else 0
    return sum(x.untyped_storage().nbytes() for x in kept.values()) - 2 * copies


@pytest.mark.parametrize("block", ["conformer", "transformer"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_activations_of_a_block_are_what_autograd_keeps(block: str, bfloat16: bool) -> None:
    plain = ("encoder.conv_norm=batch", "encoder.position=none", "mixer.position=none")
    config = tiny(f"encoder.block={block}", *plain)
    rows, frames = 4, 60
    kept = bytes_kept(config, 3, frames, rows, bfloat16) - bytes_kept(config, 1, frames, rows, bfloat16)
    expected = 2 * rows * frames * cost._block_bytes(config, frames, bfloat16)
    assert kept == pytest.approx(expected, rel=0.05)


def test_weights_gradients_and_optimizer_are_exact() -> None:
    memory, number = cost.cost_of(tiny("train.precision=float32")).memory, cost.cost_of(tiny()).parameters
    assert memory.gradients == 4 * number
    assert memory.optimizer == 8 * number
    assert 4 * number <= memory.weights <= 4.2 * number, "and a few buffers"


def test_frames_that_are_seen_cost_their_predictions() -> None:
    key = "objectives.masked_prediction.seen_weight"
    without, some = (cost.cost_of(tiny(f"{key}={weight}")) for weight in (0, 0.5))
    assert some.memory_bytes > without.memory_bytes
    flops = [{part.name: part.forward_flops for part in each.parts} for each in (without, some)]
    more = {name for name, number in flops[1].items() if number > flops[0][name]}
    assert more == {"objectives", "targets"}
    assert flops[1]["objectives"] < 4 * flops[0]["objectives"]


def test_memory_grows_with_what_costs_memory() -> None:
    base = total_bytes(tiny())
    assert total_bytes(tiny("data.batch_seconds=240")) > 1.3 * base
    assert total_bytes(tiny("encoder.num_layers=8")) > 1.3 * base
    assert total_bytes(tiny("train.precision=float32")) > base
    assert total_bytes(tiny("train.checkpoint_activations=true")) < base
    assert total_bytes(tiny("optim.name=adafactor")) < base


def test_parts_add_up_to_the_model() -> None:
    from seqssl.assembly import build_model

    config = tiny("encoder.num_layers=6", "masking.fill=learned")
    costs, model = cost.cost_of(config), build_model(config, device="meta")
    assert costs.parameters == sum(p.numel() for p in model.parameters() if p.requires_grad)
    names = [part.name for part in costs.parts]
    assert "encoder: blocks above every tap, unused" in names
    assert "masking" in names
    assert next(part for part in costs.parts if "unused" in part.name).forward_flops == 0


def test_flops_of_the_blocks_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = tiny("data.batch_seconds=4", "data.max_seconds=4", "data.join_seconds=null")
    costs = cost.cost_of(config)
    encoder = build_encoder(config.encoder, config.mixer, checkpoint_activations=False).eval()
    x = torch.randn(costs.rows, costs.row_frames, config.encoder.dim)
    known = Frames(torch.ones(x.shape[:2], dtype=torch.bool))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(x, known)
    planned = sum(part.forward_flops for part in costs.parts if part.name.startswith("encoder"))
    # Torch does not count the CPU's fused attention.
    attention = config.encoder.num_layers * 4 * costs.row_frames**2 * config.encoder.dim * costs.rows
    counted = counter.get_total_flops()
    assert planned == pytest.approx(counted, rel=0.03) or planned - attention == pytest.approx(
        counted, rel=0.03
    )


def test_checkpointing_repeats_the_blocks() -> None:
    once, twice = cost.cost_of(tiny()), cost.cost_of(tiny("train.checkpoint_activations=true"))
    assert 1.2 < twice.micro_flops / once.micro_flops < 4 / 3


def test_devices_share_the_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "local_speeds", lambda: [hardware.Speed("here", 1e12, None)])
    result = plan.plan(load_recipe("speech_w2vbert", "size=xl"), devices=64, device="H100")
    lines = [line for line in result.estimates if line.device == "h100"]
    assert [line.devices for line in lines] == [1, 2, 4, 8, 16, 32, 64]
    assert {line.input_per_update for line in lines} == {65_536}
    assert lines[0].seconds == pytest.approx(64 * lines[-1].seconds)
    assert all(line.fits for line in lines)
    assert result.estimates[-1].fits is None
    assert not plan.plan(load_recipe("speech_w2vbert", "size=xl"), device="l4").estimates[0].fits


def test_an_unknown_gpu() -> None:
    with pytest.raises(UserError, match="did you mean 'h100'"):
        plan.plan(tiny(), device="h10o")


def test_seconds_need_a_rate() -> None:
    with pytest.raises(UserError, match=r"data\.batch_frames"):
        cost._steps(1.0, None, None)


class FakeGpu:
    name = "a GPU"

    def __init__(self, total_memory: float) -> None:
        self.total_memory = total_memory


@pytest.mark.parametrize(("gib", "expected"), [(80, "xl"), (16, "base"), (0.01, "tiny")])
def test_auto_takes_the_first_size_that_the_gpu_holds(
    monkeypatch: pytest.MonkeyPatch, gib: float, expected: str
) -> None:
    monkeypatch.setattr(plan, "has_gpu", lambda: True)
    monkeypatch.setattr(plan, "num_cores", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: FakeGpu(gib * 2**30))
    config = load_recipe("speech_w2vbert")
    assert config.size == expected


def test_auto_stays_on_the_cpu_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "has_gpu", lambda: True)
    monkeypatch.setattr(plan, "num_cores", lambda: 2)
    assert load_recipe("speech_w2vbert", "train.device=cpu").size == "tiny"


def test_the_tables_hold_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from seqssl.cli.tables import plan_tables

    monkeypatch.setattr(plan, "local_speeds", lambda: [hardware.Speed("here, float32", 1e11, None)])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(plan_tables(plan.plan(load_recipe("speech_w2vbert", "size=xl"), devices=2)))
    text = console.export_text()
    for words in ("591.5M parameters", "65,536", "a100-80gb", "here, float32", "checkpointing"):
        assert words in text
    assert "…" not in text, "nothing is cut at 80 columns"


def test_matmul_speed_leaves_the_threads_alone() -> None:
    before = torch.get_num_threads()
    assert hardware.matmul_speed("float32", threads=1) > 1e6
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("name", "flops"),
    [("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA A100-SXM4-40GB", 312e12), ("NVIDIA GeForce RTX 3060", None),
     ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12), ("Something else", None)],
)  # fmt: skip
def test_peak_of_a_gpu_by_its_drivers_name(name: str, flops: Any) -> None:
    assert hardware.peak_flops(name) == flops
