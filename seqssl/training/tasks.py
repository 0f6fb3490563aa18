"""Tasks: what the one training loop runs."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, nn

from seqssl.model.joint import JointModel
from seqssl.model.pretraining import Output, PretrainingModel
from seqssl.model.types import Batch, MaskedFrames
from seqssl.training.tally import Window


@dataclass(frozen=True)
class Draws:
    """The only source of randomness of a micro-step: its seed, and the Gumbel temperature."""

    seed: tuple[int, ...]
    temperature: float | None = None

    def generator(self, device: torch.device | str = "cpu") -> Generator:
        """A generator seeded by (run seed, update, index of the micro-batch over micro-steps and ranks)."""
        state = np.random.SeedSequence(self.seed).generate_state(2, np.uint32)
        return Generator(device).manual_seed(int(state[0]) << 32 | int(state[1]))


class PretrainTask:
    """Pre-training: `model` is the network, `runner` the same with gradients shared over ranks."""

    def __init__(
        self, model: PretrainingModel | JointModel, runner: nn.Module, *, device: torch.device, seed: int
    ) -> None:
        self.references: dict[str, float] = {}  # figures of the held-out data that no training changes
        self.model, self.runner, self.device, self.seed = model, runner, device, seed

    def draw(self, batch: Batch, draws: Draws) -> MaskedFrames:
        """The masked frames of a batch that is still on the CPU."""
        return self.model.draw_mask(batch, draws.generator())

    def step(self, batch: Batch, frames: MaskedFrames, draws: Draws) -> Output:
        """Forward pass of one micro-batch on the device."""
        generator = draws.generator(self.device)
        torch.manual_seed(generator.initial_seed())  # dropout draws from the global generator
        output: Output = self.runner(batch, frames, temperature=draws.temperature, generator=generator)
        return output

    @torch.no_grad()
    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Metrics over all batches, without noise, with the same masks and negatives every time."""
        window = Window()
        self.model.eval()
        for index, batch in enumerate(batches):
            draws = Draws((self.seed, 2**31, index))
            frames = self.draw(batch, draws)
            generator = draws.generator(self.device)
            output = self.model(
                batch.to(self.device), frames.to(self.device), temperature=None, generator=generator
            )
            window.add(output, batch, frames)
        self.model.train()
        return window.close() | self.references
