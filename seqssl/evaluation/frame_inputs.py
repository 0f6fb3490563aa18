"""What the input holds at each frame of an encoder, without any of its weights."""

import numpy as np
import torch
from jaxtyping import Float
from scipy.fft import dct
from torch import Tensor
from torch.nn import functional as F

from seqssl.model.description import columns_per_step
from seqssl.model.pretraining import PretrainingModel
from seqssl.model.protocols import DrawsInputs
from seqssl.model.types import Batch

CONTEXT = 4  # frames on each side of a frame
NUM_CEPSTRA = 13


def frame_inputs(
    model: PretrainingModel, batch: Batch, num_frames: int, vocab_size: int | None
) -> Float[Tensor, "b s f"]:
    """The columns of the input's picture that a frame stands for; else its one-hot ids, or its values."""
    inputs = batch.inputs
    columns = columns_per_frame(model, inputs.shape[2] if inputs.dim() == 3 else None)
    picture = getattr(model.feature_encoder, "picture", None)
    if picture is not None:
        with torch.inference_mode():
            image = picture(inputs, batch.lengths).float().clone()
    elif vocab_size is not None:
        image = F.one_hot(inputs, vocab_size).float().flatten(2)
    else:
        image = inputs.float() if inputs.dim() == 3 else inputs[..., None]
    size = num_frames * columns
    image = F.pad(image, (0, 0, 0, max(0, size - image.shape[1])))[:, :size]
    return image.reshape(len(image), num_frames, -1)


def columns_per_frame(model: PretrainingModel, channels: int | None) -> int:
    """Columns of a picture of the input, or input steps, for each frame."""
    if not isinstance(model.feature_encoder, DrawsInputs):
        return max(1, round(model.stride))
    return max(1, round(columns_per_step(model.feature_encoder, channels) * model.stride))


def with_context(x: Float[Tensor, "b s f"]) -> Float[Tensor, "b s e"]:
    """Each frame with the `CONTEXT` frames on both sides of it, zero beyond the ends."""
    padded = F.pad(x, (0, 0, CONTEXT, CONTEXT))
    return torch.cat([padded[:, n : n + x.shape[1]] for n in range(2 * CONTEXT + 1)], dim=-1)


def cepstra(image: Float[np.ndarray, "b p f"]) -> Float[np.ndarray, "b p e"]:
    """Cepstral coefficients of a logarithmic spectrum, with their first and second differences in time."""
    static = dct(image, axis=-1, norm="ortho")[..., :NUM_CEPSTRA]
    first = np.gradient(static, axis=-2) if static.shape[-2] > 1 else np.zeros_like(static)
    second = np.gradient(first, axis=-2) if static.shape[-2] > 1 else np.zeros_like(static)
    return np.concatenate([static, first, second], axis=-1).astype(np.float32)
