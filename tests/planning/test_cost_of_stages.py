"""What a model costs that reads the frames or codes of an earlier stage: that stage is a part of it."""

from seqssl.assembly import assemble, streams_of
from seqssl.planning.cost import Cost, cost_of
from seqssl.planning.plan import by_stage, stage_of

TOYS = ("size=tiny", "modality=toy:Toy", "data=.", "data.batch_frames=160", "train.precision=float32")


def last(recipe: str, *more: str) -> Cost:
    own = (recipe, *TOYS, *more)
    return cost_of(by_stage(*own)[""], waiting=stage_of(*own))


def targets(cost: Cost) -> float:
    return next(part.forward_flops for part in cost.parts if part.name == "targets")


def test_a_frozen_teacher_is_counted_as_its_stage_is_set() -> None:
    plain, wide = last("base/hubert"), last("base/hubert", "stages.first.encoder.block.ffn_dim=2048")
    assert not plain.is_real and not wide.is_real, "no weights are made"
    assert 0 < targets(plain) < targets(wide)
    assert wide.micro_flops - plain.micro_flops == targets(wide) - targets(plain), "forward alone"
    assert targets(last("base/hubert", "targets.tap=layer1")) < targets(plain), "up to its layer"
    assert targets(last("base/hubert", "targets.tap=auto")) > targets(plain), "which may be the last"


def test_codes_to_read_are_those_of_the_stage_as_it_is_set() -> None:
    own = ("base/discretebert", *TOYS, "stages.quantizer.quantizer.codebook_size=7")
    config = by_stage(*own)[""]
    model = assemble(config, streams_of(config, stage_of(*own)), "meta")
    assert {*model.of("").targets.codebook_sizes} == {7}


def test_the_weights_of_a_teacher_take_memory_and_are_not_trained() -> None:
    plain, wide = last("base/hubert"), last("base/hubert", "stages.first.encoder.block.ffn_dim=2048")
    layers, more = 4, 2048 - 384  # of the teacher's blocks: two matrices and a bias are so much wider
    assert wide.memory.weights - plain.memory.weights == 4 * layers * more * (2 * 192 + 1)
    assert wide.parameters == plain.parameters and wide.memory.gradients == plain.memory.gradients
