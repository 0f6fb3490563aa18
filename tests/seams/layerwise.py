"""A task of a user's own: lower layers learn more slowly (layer-wise learning rates, 2003.10555)."""

from torch import Tensor

from seqssl import PretrainingModel, PretrainTask


class LayerWise(PretrainTask):
    """Block number l of L gets decay^(L - l) of the learning rate; what is below the blocks gets decay^L."""

    def __init__(self, model: PretrainingModel, seed: int, *, decay: float = 0.5) -> None:
        super().__init__(model, seed)
        self.decay = decay

    def parameter_groups(self) -> list[dict[str, list[Tensor] | float]]:
        blocks = self.model.encoder.blocks
        scales = {
            id(p): self.decay ** (len(blocks) - 1 - layer)
            for layer, b in enumerate(blocks)
            for p in b.parameters()
        }
        below = [*self.model.feature_encoder.parameters(), *self.model.input_projection.parameters()]
        scales |= {id(p): self.decay ** len(blocks) for p in below}
        groups: dict[float, list[Tensor]] = {}
        for p in self.model.parameters():
            groups.setdefault(scales.get(id(p), 1.0), []).append(p)
        return [{"params": params, "lr_scale": scale} for scale, params in groups.items()]
