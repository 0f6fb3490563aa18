"""Quantizers with one mistake each; `fails` names the checks that must find it."""

import math
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from seqssl.model.quantizers import GumbelProductQuantizer, gumbel_noise
from seqssl.model.types import Quantized


class BrokenQuantizer(GumbelProductQuantizer):
    """The textbook form, its steps open to be overridden; by itself nothing is wrong with it."""

    fails: ClassVar[set[str]] = set()

    def __init__(self, input_dim: int) -> None:
        super().__init__(input_dim, num_codebooks=2, codebook_size=7, dim=8)

    def forward(
        self, x: Tensor, *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Quantize, plainly."""
        logits = self.clean_logits(x)
        noisy = logits if generator is None or temperature is None else logits + self.noise(logits, generator)
        probs = self.probs(noisy, temperature)
        codes = self.choose(noisy, temperature)
        one_hot = nn.functional.one_hot(codes, self.codebook_size).to(probs.dtype)
        vectors = self.mix(one_hot, probs)
        return Quantized(vectors, codes, self.mean_use(logits, noisy, temperature))

    def clean_logits(self, x: Tensor) -> Tensor:
        """(n, g, v)."""
        logits: Tensor = self.logits(x).to(self.codebook.dtype)
        return logits.view(len(x), self.num_codebooks, self.codebook_size)

    def noise(self, logits: Tensor, generator: Generator) -> Tensor:
        """Like the logits."""
        return gumbel_noise(logits, generator)

    def probs(self, noisy: Tensor, temperature: float | None) -> Tensor:
        """(n, g, v)."""
        return (noisy / (temperature or 1.0)).softmax(-1)

    def choose(self, noisy: Tensor, temperature: float | None) -> Tensor:
        """(n, g)."""
        return noisy.argmax(-1)

    def mix(self, one_hot: Tensor, probs: Tensor) -> Tensor:
        """(n, q); the parentheses keep the forward pass exact."""
        return self.entries(one_hot + (probs - probs.detach()))

    def entries(self, weights: Tensor) -> Tensor:
        """(n, q)."""
        return torch.einsum("ngv,gve->nge", weights, self.codebook).flatten(1)

    def mean_use(self, logits: Tensor, noisy: Tensor, temperature: float | None) -> Tensor:
        """(g, v)."""
        return logits.softmax(-1).sum(0) / max(1, len(logits))


class SoftForward(BrokenQuantizer):
    """The vectors lean a little towards the soft mixture."""

    fails: ClassVar = {"forward_is_one_hot"}

    def mix(self, one_hot: Tensor, probs: Tensor) -> Tensor:
        """Hard, plus a hundredth of what it should not be."""
        lean = self.entries(probs) - self.entries(one_hot)
        return super().mix(one_hot, probs) + 0.01 * lean.detach()


class NoTemperatureInGradient(BrokenQuantizer):
    """The soft path forgets the temperature."""

    fails: ClassVar = {"straight_through_gradient_is_that_of_the_soft_path"}

    def probs(self, noisy: Tensor, temperature: float | None) -> Tensor:
        """Always at temperature 1."""
        return noisy.softmax(-1)


class DetachedChoice(BrokenQuantizer):
    """No gradient reaches the logits through the vectors."""

    fails: ClassVar = {"straight_through_gradient_is_that_of_the_soft_path"}

    def mix(self, one_hot: Tensor, probs: Tensor) -> Tensor:
        """Hard in both directions."""
        return self.entries(one_hot)


class DetachedEntries(BrokenQuantizer):
    """The codebook is never trained."""

    fails: ClassVar = {
        "straight_through_gradient_is_that_of_the_soft_path",
        "gradient_reaches_every_parameter",
    }

    def entries(self, weights: Tensor) -> Tensor:
        """Entries without gradient."""
        return torch.einsum("ngv,gve->nge", weights, self.codebook.detach()).flatten(1)


class FlatCodes(BrokenQuantizer):
    """Codes number the entries of all codebooks through."""

    fails: ClassVar = {
        "codes_are_in_range",
        "forward_is_one_hot",
        "takes_the_argmax_without_a_temperature",
        "straight_through_gradient_is_that_of_the_soft_path",
        "draws_follow_the_softmax",
        "entries_may_be_permuted",
    }

    def forward(
        self, x: Tensor, *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Shift the codes of the second codebook."""
        out = super().forward(x, temperature=temperature, generator=generator)
        shift = torch.arange(self.num_codebooks) * self.codebook_size
        return replace(out, codes=out.codes + shift)


class UsageOfSums(BrokenQuantizer):
    """usage adds up over frames."""

    fails: ClassVar = {
        "usage_is_a_distribution",
        "bfloat16_agrees_with_float32",
        "straight_through_gradient_is_that_of_the_soft_path",
    }

    def mean_use(self, logits: Tensor, noisy: Tensor, temperature: float | None) -> Tensor:
        """A sum, not a mean."""
        return logits.softmax(-1).sum(0)


class UsageWithNoise(BrokenQuantizer):
    """usage is that of the noisy logits."""

    fails: ClassVar = {"usage_ignores_temperature_and_noise"}

    def mean_use(self, logits: Tensor, noisy: Tensor, temperature: float | None) -> Tensor:
        """The mean of what was sampled from."""
        return super().mean_use(noisy, noisy, temperature)


class UsageOfNothing(BrokenQuantizer):
    """The mean over no frames is NaN."""

    fails: ClassVar = {"no_frames_are_no_problem"}

    def mean_use(self, logits: Tensor, noisy: Tensor, temperature: float | None) -> Tensor:
        """A mean without a guard."""
        return logits.softmax(-1).mean(0)


class UniformNoise(BrokenQuantizer):
    """The noise is not Gumbel's."""

    fails: ClassVar = {"draws_follow_the_softmax"}

    def noise(self, logits: Tensor, generator: Generator) -> Tensor:
        """Of the right variance, at least."""
        uniform = torch.rand(logits.shape, generator=generator, dtype=logits.dtype)
        return (uniform - 0.5) * math.pi * math.sqrt(2)


class TemperatureBeforeNoise(BrokenQuantizer):
    """Codes are drawn from softmax(logits / temperature)."""

    fails: ClassVar = {"temperature_never_changes_the_draw", "draws_follow_the_softmax"}

    def forward(
        self, x: Tensor, *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Scale the logits, then add noise."""
        self.scale = temperature or 1.0
        return super().forward(x, temperature=temperature, generator=generator)

    def noise(self, logits: Tensor, generator: Generator) -> Tensor:
        """As if the logits had been divided."""
        return self.scale * super().noise(logits, generator)


class GlobalNoise(BrokenQuantizer):
    """Noise comes from torch's global random state."""

    fails: ClassVar = {
        "draws_only_from_its_generator",
        "temperature_never_changes_the_draw",
        "codebooks_are_independent",
    }

    def noise(self, logits: Tensor, generator: Generator) -> Tensor:
        """The generator is not used."""
        return gumbel_noise(logits, torch.default_generator)


class NoiseInEvaluation(BrokenQuantizer):
    """Noise without a generator."""

    fails: ClassVar = {
        "draws_only_from_its_generator",
        "adds_no_noise_without_a_generator",
        "usage_ignores_temperature_and_noise",
        "straight_through_gradient_is_that_of_the_soft_path",
        "codebooks_are_independent",
    }

    def forward(
        self, x: Tensor, *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Dropout-like noise at every temperature but None."""
        if temperature is not None and generator is None:
            x = x + torch.randn_like(x)
        return super().forward(x, temperature=temperature, generator=generator)


class NoisyArgmax(BrokenQuantizer):
    """Evaluation is drawn where a generator is given."""

    fails: ClassVar = {"takes_the_argmax_without_a_temperature"}

    def forward(
        self, x: Tensor, *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """A temperature of None counts as 1."""
        if temperature is None and generator is not None:
            return super().forward(x, temperature=1.0, generator=generator)
        return super().forward(x, temperature=temperature, generator=generator)


class CoupledCodebooks(BrokenQuantizer):
    """The first codebook's choice shifts the second one's noise."""

    fails: ClassVar = {"codebooks_are_independent", "draws_follow_the_softmax"}

    def noise(self, logits: Tensor, generator: Generator) -> Tensor:
        """Rolled by the first codebook's argmax."""
        noise = super().noise(logits, generator)
        first = (logits + noise)[:, :1].detach()
        return torch.cat([noise[:, :1], noise[:, 1:] + first], dim=1)


class FirstEntryPreferred(BrokenQuantizer):
    """The first entry wins unless another is clearly better."""

    fails: ClassVar = {
        "entries_may_be_permuted",
        "takes_the_argmax_without_a_temperature",
        "draws_follow_the_softmax",
    }

    def choose(self, noisy: Tensor, temperature: float | None) -> Tensor:
        """A head start for entry 0."""
        start = torch.zeros_like(noisy)
        start[..., 0] = 1.0
        return (noisy + start).argmax(-1)


class CenteredOverFrames(BrokenQuantizer):
    """Logits are centered over the frames at hand."""

    fails: ClassVar = {
        "frames_are_independent",
        "takes_the_argmax_without_a_temperature",
        "straight_through_gradient_is_that_of_the_soft_path",
    }

    def clean_logits(self, x: Tensor) -> Tensor:
        """A batch norm in disguise."""
        logits = super().clean_logits(x)
        return logits - logits.mean(0)


class NaiveSoftmax(BrokenQuantizer):
    """exp, then divide."""

    fails: ClassVar = {
        "extreme_inputs_stay_finite",
        "forward_is_one_hot",
        "codebooks_are_independent",
    }

    def probs(self, noisy: Tensor, temperature: float | None) -> Tensor:
        """Overflows where softmax does not."""
        weights = (noisy / (temperature or 1.0)).exp()
        return weights / weights.sum(-1, keepdim=True)


class CountingCalls(BrokenQuantizer):
    """A schedule that advances by itself."""

    fails: ClassVar = {"keeps_no_state"}
    num_updates: Tensor

    def __init__(self, input_dim: int) -> None:
        super().__init__(input_dim)
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64))

    def forward(
        self, x: Tensor, *, temperature: float | None, generator: Generator | None = None
    ) -> Quantized:
        """Count, then quantize."""
        self.num_updates += 1
        return super().forward(x, temperature=temperature, generator=generator)
