"""A pre-trained encoder with a head: what of it learns, how fast, and what it reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from seqssl.config.schema import FinetuneConfig
from seqssl.errors import UserError
from seqssl.model import alignment
from seqssl.model.norms import MaskedBatchNorm
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.readouts import LayerMix, random_spans
from seqssl.model.types import Batch, Features
from seqssl.training.checkpoint import average_of
from seqssl.training.optim import ParameterGroup


class Tuned(nn.Module):
    """An encoder, a learnt mix of its layers, and a task's head on the mix.

    What only pre-training needs (targets, objectives) is kept, so that the weights are still those of the
    run's model, and is not trained.
    """

    def __init__(self, pretrained: PretrainingModel, head: nn.Module, tuning: FinetuneConfig) -> None:
        super().__init__()
        self.pretrained, self.head, self.tuning = pretrained, head, tuning
        encoder = pretrained.encoder
        encoder.tap_every_layer()
        # One tap of each layer, from the input up: two names may stand for the same layer.
        self.taps = sorted({layer: name for name, layer in encoder.taps.items()}.items())
        self.mix = LayerMix(len(self.taps), pretrained.input_projection.out_features)
        if tuning.lora_rank is not None:
            _add_lora(encoder, tuning.lora_rank, tuning.lora_modules)
        self._mark_trained()
        if tuning.average is not None:
            for name, parameter in list(self.named_parameters()):
                if parameter.requires_grad:
                    self.register_buffer(average_of(name), parameter.detach().clone())
        self.train()  # so that frozen parts are in evaluation mode from the first update on

    @property
    def dim(self) -> int:
        """Width of the frames that the head reads."""
        return self.mix.dim

    def _mark_trained(self) -> None:
        """Let those parameters learn that the settings say."""
        encoder, own = self.pretrained, self.tuning
        still = [part for part in encoder.modules() if getattr(part, "stands_still", False)]
        frozen = {id(p) for part in still for p in part.parameters()}
        # Codes are a part of the encoder where it reads them.
        idle = [encoder.objectives, *([] if encoder.context == "quantized" else [encoder.targets])]
        unused = {id(p) for part in idle for p in _parameters(part)}
        kept = {id(p) for part in (encoder.feature_encoder, encoder.encoder) for p in _parameters(part)}
        for name, parameter in encoder.named_parameters():
            learns = id(parameter) not in (unused - kept) | frozen and own.freeze != "encoder"
            # Codes that the encoder reads lie on the features.
            if own.freeze == "features" and name.startswith(
                ("feature_encoder.", "feature_norm.", "targets.")
            ):
                learns = False
            if own.lora_rank is not None:
                learns = "lora_" in name and own.freeze != "encoder"
            parameter.requires_grad_(learns)

    def train(self, mode: bool = True) -> "Tuned":
        """Frozen parts stay in evaluation mode: no dropout, no new statistics."""
        super().train(mode)
        if self.tuning.freeze == "encoder":
            self.pretrained.eval()
        elif self.tuning.freeze == "features":
            self.pretrained.feature_encoder.train(False)  # type: ignore[attr-defined]  # it is a module
            self.pretrained.feature_norm.eval()
        if self.tuning.lora_rank is not None:
            for part in self.pretrained.modules():
                if isinstance(part, MaskedBatchNorm):
                    part.eval()
        return self

    def groups(self, head_rate: float) -> list[ParameterGroup]:
        """Every trained parameter, with its multiple of the learning rate; a head may scale its own more.

        `lr_scales` of a head holds such multiples, by the names of its parameters.
        """
        scales: dict[float, list[Tensor]] = {}
        top, rates = self.taps[-1][0], getattr(self.head, "lr_scales", {})
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            if not name.startswith("pretrained."):
                scale = head_rate * rates.get(name.removeprefix("head."), 1.0)
            else:
                place = name.removeprefix("pretrained.encoder.blocks.").partition(".")[0]
                depth = top - 1 - int(place) if place.isdigit() else top
                scale = self.tuning.layer_decay ** max(0, depth)
            scales.setdefault(scale, []).append(parameter)
        return [ParameterGroup(params=found, lr_scale=scale) for scale, found in scales.items()]

    def frames(self, batch: Batch, update: int, generator: Generator | None) -> Features:
        """The mix of all layers; with a `generator`, some frames and channels are hidden."""
        freeze = self.tuning.freeze
        frozen = freeze == "encoder" or (isinstance(freeze, int) and update < freeze)
        if frozen:
            self.pretrained.eval()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            features, taps = self._taps(batch, generator)
        if frozen:
            self.train(self.training)
        layers = torch.stack([taps[name] for _, name in self.taps])
        return Features(self.mix(layers), features.lengths)

    def _taps(self, batch: Batch, generator: Generator | None) -> tuple[Features, dict[str, Tensor]]:
        model, own = self.pretrained, self.tuning
        hidden = None
        if generator is not None and own.time_share > 0:
            lengths = model.feature_encoder.output_lengths(batch.lengths)
            hidden = random_spans(
                lengths, int(lengths.max()), share=own.time_share, span=own.time_span, generator=generator
            )
        if hidden is not None and model.mask_input:
            batch = alignment.hide(batch, hidden, model.stride)
        features = model.encode_features(batch)
        x = model.clear(batch, features)
        if hidden is not None and not model.mask_input:
            assert generator is not None
            if getattr(model.masking, "hides", True):
                x = model.masking.apply(x, hidden, generator)
            else:  # the model has never learned what stands for a hidden frame
                x = x.masked_fill(hidden[..., None], 0.0)
        if generator is not None and own.channel_share > 0:
            widths = torch.full((len(x),), x.shape[-1], device=x.device)
            lost = random_spans(
                widths, x.shape[-1], share=own.channel_share, span=own.channel_span, generator=generator
            )
            x = x.masked_fill(lost[:, None], 0.0)
        return features, model.contexts(batch, features, x, generator)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the running mean of the weights toward what they are now."""
        decay = self.tuning.average
        if decay is not None:
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    self.get_buffer(average_of(name)).lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def begin_average(self) -> None:
        """Let the running mean of the weights begin at what they are now."""
        if self.tuning.average is not None:
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    self.get_buffer(average_of(name)).copy_(parameter)

    @torch.no_grad()
    def settle(self) -> None:
        """Take over the running mean of the weights for good, where there is one."""
        if self.tuning.average is not None:
            for name, parameter in self.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(self.get_buffer(average_of(name)))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context in which the weights are their running mean, where there is one."""
        if self.tuning.average is None:
            yield
            return
        learned = {name: p for name, p in self.named_parameters() if p.requires_grad}
        now = {name: p.detach().clone() for name, p in learned.items()}
        try:
            with torch.no_grad():
                for name, parameter in learned.items():
                    parameter.copy_(self.get_buffer(average_of(name)))
            yield
        finally:
            with torch.no_grad():
                for name, parameter in learned.items():
                    parameter.copy_(now[name])


def _parameters(part: object) -> Iterator[nn.Parameter]:
    return part.parameters() if isinstance(part, nn.Module) else iter(())


def _add_lora(encoder: nn.Module, rank: int, modules: list[str]) -> None:
    """Put low-rank additions (2106.09685) beside linear maps; UserError for names of none."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("finetune.lora_rank wants peft: pip install 'seqssl[lora]'") from error
    try:
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(modules)), encoder)
    except ValueError as error:
        linear = sorted(
            {name.rpartition(".")[2] for name, m in encoder.named_modules() if isinstance(m, nn.Linear)}
        )
        raise UserError(f"finetune.lora_modules = {modules}: the encoder has {', '.join(linear)}.") from error


def cut(batch: Batch, num_steps: int) -> Batch:
    """The first steps of a batch whose rows are all longer."""

    def part(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:, :num_steps]

    return replace(
        batch,
        inputs=batch.inputs[:, :num_steps],
        lengths=batch.lengths.clamp(max=num_steps),
        observed=part(batch.observed),
        times=part(batch.times),
    )
