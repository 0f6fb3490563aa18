"""A teacher that follows its model: what it says, how it moves, what is saved."""

import copy

import pytest
import torch
from torch import nn

from seqssl.model.blocks import TransformerBlock
from seqssl.model.encoder import ContextEncoder
from seqssl.model.features import PatchEncoder
from seqssl.model.layers import ConvPosition
from seqssl.model.masking import SpanMasking
from seqssl.model.mixers import Attention
from seqssl.model.objectives import MaskedPredictionLoss, RegressionLoss
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.teachers import EmaClusters, EmaTeacher
from seqssl.model.types import Batch
from seqssl.runs import starting
from seqssl.testing import check_targets
from seqssl.testing.harness import seeded

DIM, DEPTH = 8, 3


def model_of(layers: int = 2, **decays: float) -> PretrainingModel:
    torch.manual_seed(0)
    blocks = [
        TransformerBlock(Attention(DIM, num_heads=2), DIM, ffn_dim=12, dropout=0.3) for _ in range(DEPTH)
    ]
    teacher = EmaTeacher(DIM, layers=layers, **decays)  # type: ignore[arg-type]
    return PretrainingModel(
        PatchEncoder(2, dim=6, patch=2), SpanMasking(6, start_prob=0.3, span=2), teacher,
        ContextEncoder(blocks, None, taps={"output": DEPTH}), {"regression": RegressionLoss(DIM, DIM)}, DIM,
    )  # fmt: skip


def batch() -> Batch:
    return Batch(torch.randn(2, 40, 2, generator=seeded(1)), torch.tensor([40, 23]))


def test_targets_are_the_scaled_mean_of_the_top_layers() -> None:
    model = model_of()
    data = batch()
    frames = model.draw_mask(data, seeded())
    features = model.encode_features(data)
    found = model.targets(data, features, frames, temperature=None, generator=None).vectors
    again = copy.deepcopy(model).eval()
    again.encoder.tap_every_layer()
    taps = again.contexts(data, features, features.x)
    for place, (row, column) in enumerate(zip(frames.rows.tolist(), frames.columns.tolist(), strict=True)):
        size = int(features.lengths[row])
        means = []
        for name in ("layer2", "output"):
            own = taps[name][row, :size]
            means.append((own[column] - own.mean(0)) / (own.var(0, unbiased=False) + 1e-5).sqrt())
        torch.testing.assert_close(found[place], torch.stack(means).mean(0), rtol=1e-3, atol=1e-4)


def test_the_teacher_keeps_the_contract_of_targets() -> None:
    data = batch()
    features = model_of().eval().encode_features(data)
    check_targets(lambda: model_of().targets, data, features)


def test_it_follows_and_its_decay_rises() -> None:
    model = model_of(decay=0.5, end_decay=0.9, rise=4)
    teacher = model.targets
    assert isinstance(teacher, EmaTeacher)
    weight = teacher.encoder.blocks[0].mixer.output.weight
    expected = weight.clone()
    for step in range(6):
        with torch.no_grad():
            model.encoder.blocks[0].mixer.output.weight.add_(1.0)  # type: ignore[union-attr]
        decay = 0.5 + min(1.0, step / 4) * 0.4
        assert teacher.current_decay() == pytest.approx(decay)
        expected = decay * expected + (1 - decay) * model.encoder.blocks[0].mixer.output.weight  # type: ignore[union-attr]
        teacher.after_update()
        torch.testing.assert_close(weight, expected)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_the_teacher_is_saved_and_never_drops_out() -> None:
    model = model_of().train()
    assert not model.targets.training and not model.targets.encoder.blocks[0].training  # type: ignore[union-attr]
    other = model_of()
    with torch.no_grad():
        for parameter in model.targets.parameters():  # type: ignore[union-attr]
            parameter.add_(0.5)
    other.load_state_dict(model.state_dict())
    data = batch()
    frames = model.draw_mask(data, seeded())
    outputs = [m(data, frames, temperature=1.0, generator=seeded()) for m in (model.eval(), other.eval())]
    assert torch.equal(outputs[0].terms["regression"], outputs[1].terms["regression"])


def test_one_step_trains_the_model_and_not_the_teacher() -> None:
    model = model_of().train()
    data = batch()
    frames = model.draw_mask(data, seeded())
    output = model(data, frames, temperature=1.0, generator=seeded())
    output.terms["regression"].backward()
    assert model.feature_encoder.project.weight.grad.any()  # type: ignore[union-attr]
    assert output.sums["regression/target_std"] > 0


@pytest.mark.parametrize(
    ("beta", "expected"),
    [(0.0, nn.MSELoss(reduction="none")), (0.5, nn.SmoothL1Loss(reduction="none", beta=0.5))],
)
def test_the_regression_is_torchs(beta: float, expected: nn.Module) -> None:
    model = model_of()
    objective = RegressionLoss(DIM, DIM, beta=beta, scale=0.25)
    model.objectives.named["regression"] = objective
    data = batch()
    frames = model.draw_mask(data, seeded())
    features = model.encode_features(data)
    model.eval()
    output = model(data, frames, temperature=None, generator=seeded(2))
    targets = model.targets(data, features, frames, temperature=None, generator=None).vectors
    x = model.masking.apply(features.x, frames.mask, seeded(2))
    found = objective.head(frames.take(model.contexts(data, features, x)["output"]))
    total = expected(found, targets).mean(-1).sum() * 0.25
    torch.testing.assert_close(output.terms["regression"], total)


def test_what_cannot_be_followed_is_said() -> None:
    with pytest.raises(ValueError, match=r"targets.layers = 4: the context encoder has 3"):
        model_of(layers=4)
    with pytest.raises(ValueError, match="must be at least decay"):
        EmaTeacher(DIM, decay=0.99, end_decay=0.9)


def clustered(**settings: float) -> PretrainingModel:
    torch.manual_seed(0)
    blocks = [TransformerBlock(Attention(DIM, num_heads=2), DIM, ffn_dim=12) for _ in range(DEPTH)]
    teacher = EmaClusters(DIM, layers=2, num_clusters=5, **settings)  # type: ignore[arg-type]
    loss = MaskedPredictionLoss(DIM, 2, 5, tap="output")
    return PretrainingModel(
        PatchEncoder(2, dim=6, patch=2), SpanMasking(6, start_prob=0.3, span=2), teacher,
        ContextEncoder(blocks, None, taps={"output": DEPTH}), {"masked_prediction": loss}, DIM,
    )  # fmt: skip


def test_clusters_are_the_nearest_of_each_layer_and_follow_their_frames() -> None:
    """DinoSR, equations 3 to 5, one frame and one center at a time."""
    model = clustered(cluster_decay=0.75).train()
    targets, data = model.targets, batch()
    assert isinstance(targets, EmaClusters)
    check_targets(lambda: clustered().targets, data, clustered().eval().encode_features(data))
    frames = model.draw_mask(data, seeded())
    features = model.encode_features(data)
    layers = [frames.take(layer).detach() for layer in targets.scaled_layers(data, features)]
    before = [codebook.entries.detach().clone() for codebook in targets.codebooks]  # type: ignore[operator]
    found = targets(data, features, frames, temperature=1.0, generator=seeded(1))
    assert targets.codebook_sizes == (5, 5) and found.codes.shape == (len(frames), 2)
    assert torch.equal(targets.codebooks[0].entries, before[0]), "nothing moves before the update is done"  # type: ignore[arg-type]
    for codebook in targets.codebooks:
        codebook.after_update()  # type: ignore[operator]
    for number, (layer, entries) in enumerate(zip(layers, before, strict=True)):
        sums, counts = entries.clone(), torch.ones(5)
        own = torch.zeros(5, DIM), torch.zeros(5)
        for place, x in enumerate(layer):
            nearest = min(range(5), key=lambda v: (x - entries[v]).square().sum().item())
            assert int(found.codes[place, number]) == nearest
            own[0][nearest] += x
            own[1][nearest] += 1
        sums, counts = 0.75 * sums + 0.25 * own[0], 0.75 * counts + 0.25 * own[1]
        torch.testing.assert_close(
            targets.codebooks[number].entries, sums / counts[:, None], rtol=1e-3, atol=1e-4
        )


def test_clusters_stand_still_in_evaluation() -> None:
    model = clustered().eval()
    data = batch()
    frames = model.draw_mask(data, seeded())
    model(data, frames, temperature=None, generator=seeded())
    before = model.targets.codebooks[0].entries.clone()  # type: ignore[union-attr]
    model.targets.codebooks[0].after_update()  # type: ignore[union-attr]
    torch.testing.assert_close(model.targets.codebooks[0].entries, before, rtol=1e-4, atol=1e-5)  # type: ignore[union-attr]


def test_a_model_that_takes_weights_over_is_followed_from_there() -> None:
    model = model_of()
    with torch.no_grad():
        for parameter in (*model.encoder.parameters(), *model.input_projection.parameters()):
            parameter.add_(1.0)
    given = {name: x for name, x in model.state_dict().items() if not name.startswith("targets.")}
    starting._follow_again(model, given)
    teacher = model.targets
    assert isinstance(teacher, EmaTeacher)
    torch.testing.assert_close(teacher.encoder.state_dict(), model.encoder.state_dict())
    assert [*teacher.encoder.taps] == ["2", "3"]
    before = teacher.encoder.blocks[0].mixer.output.weight.clone()
    with torch.no_grad():
        model.encoder.blocks[0].mixer.output.weight.add_(1.0)  # type: ignore[union-attr]
    starting._follow_again(model, model.state_dict())
    assert torch.equal(teacher.encoder.blocks[0].mixer.output.weight, before), "its own weights were given"


def test_the_teacher_reads_the_models_own_projection_and_has_its_positions() -> None:
    """As the released code does; only blocks are running means."""
    torch.manual_seed(0)
    blocks = [TransformerBlock(Attention(DIM, num_heads=2), DIM, ffn_dim=12) for _ in range(2)]
    position = ConvPosition(DIM, kernel=4, groups=2)
    teacher = EmaTeacher(DIM, layers=1, decay=0.9, end_decay=0.9)
    model = PretrainingModel(
        PatchEncoder(2, dim=6, patch=2), SpanMasking(6), teacher,
        ContextEncoder(blocks, position, taps={"output": 2}), {"regression": RegressionLoss(DIM, DIM)}, DIM,
    ).eval()  # fmt: skip
    data = batch()
    features = model.encode_features(data)
    before = teacher.vectors_of(data, features)
    with torch.no_grad():
        model.input_projection.weight.mul_(-1)
        for parameter in model.encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=seeded(3)))
    assert not torch.allclose(teacher.vectors_of(data, features), before), "before any update of the teacher"
    teacher.after_update()
    theirs = dict(model.encoder.named_parameters())
    copied = {name for name, p in teacher.encoder.named_parameters() if torch.equal(p, theirs[name])}
    assert copied == {name for name in theirs if name.startswith("position.")} and copied


def test_centers_start_as_spread_out_as_scaled_frames() -> None:
    torch.manual_seed(0)
    for codebook in EmaClusters(64, layers=2, num_clusters=50).codebooks:
        assert codebook.entries.std().item() == pytest.approx(1.0, abs=0.05)
        assert torch.equal(codebook.sums, codebook.entries)


def test_the_decay_goes_on_after_loading_and_waits_for_no_gpu() -> None:
    model, other = model_of(decay=0.5, end_decay=0.9, rise=4), model_of(decay=0.5, end_decay=0.9, rise=4)
    for _ in range(3):
        model.targets.after_update()  # type: ignore[operator]
    other.load_state_dict(model.state_dict())
    teacher = other.targets
    assert isinstance(teacher, EmaTeacher)
    teacher.updates = teacher.updates.to("meta")  # from which nothing can be read
    assert teacher.current_decay() == pytest.approx(0.8)
