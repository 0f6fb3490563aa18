"""Several streams over one context encoder."""

from collections.abc import Mapping

from torch import Generator, nn

from seqssl.model.pretraining import PretrainingModel
from seqssl.model.types import Batch, Draws, MaskedFrames, Output, Plan


class JointModel(nn.Module):
    """Several streams, each with its own front end, codebooks and heads, over one context encoder."""

    def __init__(self, models: Mapping[str, PretrainingModel]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(models)

    def of(self, stream: str) -> PretrainingModel:
        """The model of one stream."""
        model = self.streams[stream]
        assert isinstance(model, PretrainingModel)
        return model

    def plan(self, batch: Batch, draws: Draws) -> Plan:
        """The plan of a micro-batch, made by the model of its stream."""
        return self.of(batch.stream).plan(batch, draws)

    def draw_mask(self, batch: Batch, generator: Generator) -> MaskedFrames:
        """Choose the masked frames of a batch, with the model of its stream."""
        return self.of(batch.stream).draw_mask(batch, generator)

    def forward(
        self, batch: Batch, frames: MaskedFrames, *, temperature: float | None, generator: Generator
    ) -> Output:
        """One step on a batch, with the model of its stream."""
        output: Output = self.streams[batch.stream](
            batch, frames, temperature=temperature, generator=generator
        )
        return output
