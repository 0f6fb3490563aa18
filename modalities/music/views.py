"""What the model sees of a window: a piano roll, or its notes as compound tokens."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from modalities.music.windows import DURATION, ONSET, PART, PITCH, POSITION
from seqssl import Features

NUM_FIELDS = 5  # pitch, duration, shift, position, part
VOCAB_SIZE = 129  # 0 is unknown, the value v of a field is 1 + v; so a MIDI pitch just fits
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


def channel_names(lowest: int, highest: int) -> tuple[str, ...]:
    """Of a roll: "onset C4" and so on for all pitches, then "hold C4" and so on."""
    pitches = [f"{NAMES[pitch % 12]}{pitch // 12 - 1}" for pitch in range(lowest, highest + 1)]
    return tuple(f"{what} {pitch}" for what in ("onset", "hold") for pitch in pitches)


def piano_roll(
    notes: Int[np.ndarray, "n 5"], length: int, *, lowest: int, highest: int
) -> tuple[Float[np.ndarray, "t c"], Bool[np.ndarray, "t c"]]:
    """1 where a note begins, then 1 where it sounds; steps in which nothing sounds are not observed."""
    num_pitches = highest - lowest + 1
    onset, pitch = notes[:, ONSET], notes[:, PITCH] - lowest
    end = (onset + notes[:, DURATION]).clip(max=length)
    change = np.zeros((length + 1, num_pitches), dtype=np.int32)
    np.add.at(change, (onset.clip(min=0), pitch), 1)
    np.add.at(change, (end, pitch), -1)
    roll = np.zeros((length, 2 * num_pitches), dtype=np.float32)
    roll[:, num_pitches:] = change[:-1].cumsum(axis=0) > 0
    begins = onset >= 0
    roll[onset[begins], pitch[begins]] = 1
    sounds = roll.max(axis=1, keepdims=True) > 0
    return roll, np.repeat(sounds, roll.shape[1], axis=1)


def note_tokens(notes: Int[np.ndarray, "n 5"]) -> Int[np.ndarray, "k f"]:
    """Ids of the notes that begin in the window: pitch, duration, shift, position in the bar, part.

    The shift is the time since the note before. Times are in steps, and 127 also stands for more.
    """
    notes = notes[notes[:, ONSET] >= 0]
    shift = np.diff(notes[:, ONSET], prepend=0)
    fields = [notes[:, PITCH], notes[:, DURATION], shift, notes[:, POSITION], notes[:, PART]]
    return np.stack(fields, axis=1).astype(np.int64).clip(max=VOCAB_SIZE - 2) + 1


class RollEncoder(nn.Module):
    """Every `patch` steps of a roll as a frame, by one linear map and a layer norm: s = ceil(t / patch).

    Input (b, t, channels). Rests are zeros and need no channel of their own: a thousand equal ones that say
    what is there would drown the few notes of a frame (mean cosine of two frames of the demo corpus at the
    start 0.98, so 0.22).
    """

    def __init__(self, channels: int, *, dim: int = 192, patch: int = 12) -> None:
        super().__init__()
        self.dim, self.patch = dim, patch
        self.project = nn.Linear(channels * patch, dim)
        self.norm = nn.LayerNorm(dim)

    def output_lengths(self, lengths: Int[Tensor, "*b"]) -> Int[Tensor, "*b"]:
        """Frames made of so many input steps: ceil(t / patch)."""
        return (lengths + self.patch - 1) // self.patch

    def forward(self, inputs: Float[Tensor, "b t c"], lengths: Int[Tensor, "b"]) -> Features:
        """Encode; a last patch that is not full ends in rests."""
        valid = torch.arange(inputs.shape[1], device=lengths.device) < lengths[:, None]
        x = F.pad(inputs * valid[..., None], (0, 0, 0, -inputs.shape[1] % self.patch))
        x = x.reshape(len(x), x.shape[1] // self.patch, self.patch * x.shape[2])
        return Features(self.norm(self.project(x)), self.output_lengths(lengths))

    def picture(self, inputs: Float[Tensor, "b t c"], lengths: Int[Tensor, "b"]) -> Float[Tensor, "b t p"]:
        """The roll as people know it, a line a pitch: notes, and brighter where one begins."""
        onset, hold = inputs.chunk(2, dim=-1)
        return 0.6 * hold + 0.4 * onset
