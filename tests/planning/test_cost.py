"""What a micro-batch costs: counted on fake tensors, and the same on real ones."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seqssl import Draws, load_recipe
from seqssl.assembly import build_model, streams_of
from seqssl.config.schema import RunConfig
from seqssl.planning import cost
from seqssl.planning.measure import _attention, _attention_backward, _conv_backward

aten = torch.ops.aten
FORMULAS = {  # what torch's own counter lacks, or has wrong
    aten.convolution_backward: _conv_backward,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
SHORT = ("data.batch_seconds=4", "data.max_seconds=2", "data.join_seconds=null", "train.precision=float32")


def tiny(*overrides: str) -> RunConfig:
    return load_recipe("speech_w2vbert", "size=tiny", *overrides)


def total_bytes(config: RunConfig) -> int:
    return cost.cost_of(config).memory_bytes


def really(config: RunConfig) -> tuple[float, int]:
    """FLOPs of a step on real tensors, and bytes that autograd keeps, copies of weights among them."""
    (stream,) = streams_of(config)
    model = build_model(config).train()
    batch = cost.Shape.of(stream, model).batch(stream, model)
    draws = Draws((0,), 1.0)
    plan = model.plan(batch, draws)
    assert plan.frames is not None
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    bfloat16 = config.train.precision != "float32"
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x),
            torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
        ):
            output = model(batch, plan.frames, temperature=1.0, generator=draws.generator())
        total = sum(x.untyped_storage().nbytes() for x in kept.values())
        torch.stack([*output.terms.values()]).sum().backward()
    return counter.get_total_flops(), total


STRANGERS = {
    "recurrent mixer": ("mixer=strangers:Recurrent",),
    "squeezing block": ("encoder.block={target: strangers:Squeeze, rate: 3}", "mixer=strangers:Recurrent"),
    "sorting mixer, which looks at values": ("mixer=strangers:Sorting",),
}


@pytest.mark.parametrize("overrides", STRANGERS.values(), ids=STRANGERS)
def test_a_strangers_part_is_planned_as_it_computes(overrides: tuple[str, ...]) -> None:
    config = tiny(*SHORT, *overrides)
    assert cost.cost_of(config).micro_flops == pytest.approx(really(config)[0], rel=0.1)


def test_parts_that_look_at_values_are_run_on_a_real_row() -> None:
    assert cost.cost_of(tiny(*SHORT, "mixer=strangers:Sorting")).is_real
    assert not cost.cost_of(tiny(*SHORT)).is_real


@pytest.mark.parametrize("position", ["none", "rotary", "relative"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_work_is_that_of_a_real_step(position: str, precision: str) -> None:
    config = tiny(*SHORT[:3], f"mixer.position={position}", f"train.precision={precision}")
    costs, (flops, kept) = cost.cost_of(config), really(config)
    assert costs.micro_flops == pytest.approx(flops, rel=1e-6)
    assert costs.memory.activations(checkpointed=False) == pytest.approx(kept, rel=0.05)


def test_checkpointed_blocks_keep_their_inputs() -> None:
    config = tiny(*SHORT, "train.checkpoint_activations=true")
    costs, (flops, kept) = cost.cost_of(config), really(config)
    assert costs.micro_flops == pytest.approx(flops, rel=1e-6), "blocks are run twice"
    once, twice = (costs.memory.activations(checkpointed=again) for again in (False, True))
    one = (once - twice) / (config.encoder.num_layers - 1)
    assert twice == pytest.approx(kept + one, rel=0.1), "and one block's own"


def test_flops_of_a_convolution_with_groups_are_counted_by_hand() -> None:
    conv, x = nn.Conv1d(8, 8, 3, groups=4, bias=False), torch.randn(2, 8, 10, requires_grad=True)
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        y = conv(x)
        forward = counter.get_total_flops()
        y.sum().backward()
    assert forward == 2 * (2 * 8 * 8) * (2 * 3), "2 x outputs x weights of each"
    assert counter.get_total_flops() == 3 * forward


def test_rows_are_as_long_as_the_data_say_where_no_setting_does() -> None:
    """Before, the whole batch was planned as one row."""
    costs = cost.cost_of(load_recipe("music_w2vbert", "size=tiny"))
    assert (costs.rows, costs.row_frames) == (16, 256)
    for join in ("2", "null"):  # longer rows are not joined, nor cut
        costs = cost.cost_of(
            tiny("data.batch_seconds=8", "data.max_seconds=null", f"data.join_seconds={join}")
        )
        assert (costs.rows, costs.row_input) == (1, 8.0)


def test_a_joint_run_costs_its_mean_micro_batch() -> None:
    joint = load_recipe("joint_w2vbert", "size=tiny")
    costs = cost.cost_of(joint)
    names = [part.name for part in costs.parts]
    assert len(names) == len(set(names))
    assert sum(name.startswith("encoder") for name in names) == 3
    forward = sum(part.forward_flops for part in costs.parts)
    assert 2.5 * forward < costs.micro_flops < 3.5 * forward
    assert (costs.unit, costs.rows) == ("input steps", 1)


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


def test_checkpointing_repeats_the_blocks() -> None:
    once, twice = cost.cost_of(tiny()), cost.cost_of(tiny("train.checkpoint_activations=true"))
    assert 1.2 < twice.micro_flops / once.micro_flops < 4 / 3
