"""Properties of blocks and of the context encoder, for every kind of block, position and norm."""

from itertools import product

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from seqssl import Attention, ConformerBlock, ContextEncoder, Frames, TransformerBlock
from seqssl.model.layers import ConvolutionModule, ConvPosition
from seqssl.model.norms import MaskedBatchNorm
from seqssl.model.types import length_mask
from seqssl.testing.harness import seeded
from seqssl.testing.strategies import lengths, seeds

DIM = 8
KINDS = [
    *product(("conformer",), ("none", "rotary", "relative"), ("batch", "layer")),
    *product(("transformer",), ("none", "rotary", "relative"), ("",)),
]
kinds = st.sampled_from(KINDS)


def encoder(
    kind: tuple[str, str, str] = KINDS[0],
    *,
    num_layers: int = 2,
    stochastic_depth: float = 0.0,
    checkpoint_activations: bool = False,
    taps: dict[str, int] | None = None,
) -> ContextEncoder:
    """A small encoder with running statistics that are not those of its birth."""
    block, position, norm = kind
    torch.manual_seed(0)

    def made() -> nn.Module:
        mixer = Attention(DIM, num_heads=2, position=position)
        if block == "transformer":
            return TransformerBlock(mixer, dim=DIM, ffn_dim=12)
        return ConformerBlock(mixer, dim=DIM, ffn_dim=12, conv_kernel=5, conv_norm=norm)

    built = ContextEncoder(
        [made() for _ in range(num_layers)],
        ConvPosition(DIM, kernel=4, groups=2),
        taps=taps or {"output": num_layers},
        stochastic_depth=stochastic_depth,
        checkpoint_activations=checkpoint_activations,
    )
    for module in built.modules():
        if isinstance(module, MaskedBatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, Attention) and position == "relative":
            nn.init.normal_(module.content_bias)
            nn.init.normal_(module.distance_bias)
    return built


def inputs(sizes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Frames with garbage in the padding, and where they are valid."""
    valid = length_mask(sizes, int(sizes.max()))
    x = torch.randn(*valid.shape, DIM, generator=seeded(seed))
    return torch.where(valid[..., None], x, 50 * x), valid


@given(kinds, lengths(max_rows=4, max_length=12), seeds)
def test_padding_never_changes_a_frame(kind: tuple[str, str, str], sizes: Tensor, seed: int) -> None:
    """In evaluation a row comes out as it would alone."""
    model = encoder(kind).eval()
    x, valid = inputs(sizes, seed)
    batch = model(x, Frames(valid))["output"]
    for row, length in enumerate(sizes.tolist()):
        alone = model(x[row : row + 1, :length], Frames(valid[row : row + 1, :length]))["output"]
        torch.testing.assert_close(batch[row, :length], alone[0], rtol=1e-4, atol=1e-4)


@given(kinds.filter(lambda kind: kind[2] != "batch"), lengths(max_rows=4, max_length=12), seeds)
def test_without_batch_norm_padding_is_inert_in_training_too(
    kind: tuple[str, str, str], sizes: Tensor, seed: int
) -> None:
    """Gradients included: none reaches the padding."""
    model = encoder(kind).train()
    x, valid = inputs(sizes, seed)
    x.requires_grad_()
    out = model(x, Frames(valid), seeded())["output"]
    (grad,) = torch.autograd.grad(out[valid].square().sum(), x)
    assert not grad[~valid].any()


@given(kinds, lengths(max_rows=4, max_length=12), seeds)
def test_batch_mates_never_change_a_row(kind: tuple[str, str, str], sizes: Tensor, seed: int) -> None:
    model = encoder(kind).eval()
    x, valid = inputs(sizes, seed)
    other = torch.cat([x[:1], torch.randn(x[1:].shape, generator=seeded(seed + 1))])
    one, two = model(x, Frames(valid))["output"][0], model(other, Frames(valid))["output"][0]
    torch.testing.assert_close(one[valid[0]], two[valid[0]], rtol=1e-5, atol=1e-5)


@given(kinds, lengths(max_rows=5, max_length=12), seeds)
def test_rows_permute(kind: tuple[str, str, str], sizes: Tensor, seed: int) -> None:
    model = encoder(kind).eval()
    x, valid = inputs(sizes, seed)
    order = torch.randperm(len(x), generator=seeded(seed))
    one, two = model(x, Frames(valid))["output"][order], model(x[order], Frames(valid[order]))["output"]
    torch.testing.assert_close(one[valid[order]], two[valid[order]], rtol=1e-5, atol=1e-5)


@given(kinds, lengths(max_rows=3, max_length=8), seeds)
def test_padding_does_not_touch_batch_statistics(
    kind: tuple[str, str, str], sizes: Tensor, seed: int
) -> None:
    """More padding, of other values: the same training output, running statistics and gradients."""
    results = []
    x, valid = inputs(sizes, seed)
    for extra in (0, 3):
        model = encoder(kind).train()
        garbage = torch.full((len(x), extra, DIM), 1e3)
        padded, mask = torch.cat([x, garbage], 1), torch.cat([valid, garbage[..., 0] < 0], 1)
        out = model(padded, Frames(mask), seeded())["output"][mask]
        out.square().sum().backward()
        results.append([out, *model.buffers(), *(p.grad for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), seeds)
def test_taps_are_the_outputs_of_shorter_stacks(layers: list[int], seed: int) -> None:
    """A tap at depth n is the output of the first n blocks; blocks above the highest are not run."""
    model = encoder(num_layers=5, taps={f"tap-{i}": layer for i, layer in enumerate(layers)}).eval()
    x, valid = inputs(torch.tensor([6, 3]), seed)
    taps = model(x, Frames(valid))
    assert taps.keys() == model.taps.keys()
    for above in model.blocks[max(layers) :]:
        above.forward = None  # type: ignore[method-assign, assignment]  # a call would fail
    expected = model.position(x, Frames(valid))
    depths = [expected := block(expected, Frames(valid)) for block in model.blocks[: max(layers)]]
    again = model(x, Frames(valid))
    for name, layer in model.taps.items():
        assert torch.equal(taps[name], depths[layer - 1])
        assert torch.equal(taps[name], again[name])


@pytest.mark.parametrize("taps", [{}, {"output": 0}, {"output": 3}])
def test_impossible_taps_are_refused(taps: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="taps"):
        ContextEncoder([nn.Identity(), nn.Identity()], None, taps=taps)


@pytest.mark.parametrize("stochastic_depth", [-0.1, 1.0])
def test_impossible_stochastic_depth_is_refused(stochastic_depth: float) -> None:
    with pytest.raises(ValueError, match="stochastic_depth"):
        encoder(stochastic_depth=stochastic_depth)


def test_stochastic_depth_is_linear_and_drawn_from_the_generator() -> None:
    model = encoder(num_layers=4, stochastic_depth=0.4).train()
    assert model.drop_probs == pytest.approx([0.1, 0.2, 0.3, 0.4])
    x, valid = inputs(torch.full((6,), 5), 0)
    before = torch.get_rng_state()
    one, two, other = (model(x, Frames(valid), seeded(seed))["output"] for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, two) and not torch.equal(one, other)
    model.eval()
    assert torch.equal(
        model(x, Frames(valid), seeded(0))["output"], model(x, Frames(valid), seeded(1))["output"]
    )


class Adds(nn.Module):
    """A block that adds one."""

    def forward(self, x: Tensor, frames: Frames) -> Tensor:
        return x + 1


def test_stochastic_depth_keeps_the_expectation() -> None:
    """Rows are dropped one by one, at the right rate, and survivors are scaled up."""
    model = ContextEncoder(
        [Adds(), Adds()], None, taps={"middle": 1, "output": 2}, stochastic_depth=0.5
    ).train()
    x = torch.zeros(20_000, 1, 1)
    taps = model(x, Frames(torch.ones(20_000, 1, dtype=torch.bool)), seeded())
    first, second = taps["middle"], taps["output"] - taps["middle"]
    for added, drop in ((first, 0.25), (second, 0.5)):
        assert sorted(added.unique().tolist()) == pytest.approx([0, 1 / (1 - drop)])
        assert (added == 0).double().mean().item() == pytest.approx(drop, abs=0.02)
        assert added.mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_activation_checkpointing_gives_the_same_gradients(kind: tuple[str, str, str]) -> None:
    """With stochastic depth, drawn once."""
    grads = []
    for checkpointed in (False, True):
        model = encoder(kind, stochastic_depth=0.5, checkpoint_activations=checkpointed).train()
        x, valid = inputs(torch.tensor([7, 4, 7]), 0)
        model(x, Frames(valid), seeded(3))["output"][valid].square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@given(lengths(max_rows=4, max_length=9), seeds)
def test_masked_batch_norm_is_batch_norm_of_the_valid_frames(sizes: Tensor, seed: int) -> None:
    """Against torch's, on the valid frames laid end to end: output, statistics, and evaluation after it."""
    x, valid = inputs(sizes, seed)
    ours, theirs = MaskedBatchNorm(DIM), nn.BatchNorm1d(DIM)
    if int(valid.sum()) == 1:
        return  # torch refuses a single value
    assume(x[valid].var(0).min() > 1e-3)  # of values that are nearly one, rounding decides
    for norm in (ours, theirs):
        nn.init.uniform_(norm.weight, generator=seeded(seed))
        nn.init.normal_(norm.bias, generator=seeded(seed))
    torch.testing.assert_close(ours(x, valid)[valid], theirs(x[valid]), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.eval()(x, valid)[valid], theirs.eval()(x[valid]), rtol=1e-4, atol=1e-4)


def test_convolution_position_ignores_padding_and_keeps_length() -> None:
    for kernel in (3, 4, 128):
        position = ConvPosition(DIM, kernel=kernel, groups=2)
        x, valid = inputs(torch.tensor([9, 5]), 0)
        out = position(x, Frames(valid))
        alone = position(x[1:, :5], Frames(valid[1:, :5]))
        assert out.shape == x.shape
        torch.testing.assert_close(out[1:, :5], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "norm"), [(4, "batch"), (5, "group")])
def test_impossible_convolution_modules_are_refused(kernel: int, norm: str) -> None:
    with pytest.raises(ValueError, match=r"conv_kernel|conv_norm"):
        ConvolutionModule(DIM, kernel=kernel, norm=norm, dropout=0.0)
