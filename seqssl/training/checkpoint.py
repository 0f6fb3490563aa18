"""Checkpoints: safetensors and JSON in a folder that appears whole or not at all; nothing is unpickled."""

import errno
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from seqssl.errors import UserError

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What was read back."""

    path: Path
    state: dict[str, Any]  # JSON: update, cursor, window, ...
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def save(path: Path, model: nn.Module, optimizer: Optimizer | None, state: dict[str, Any]) -> None:
    """Write a checkpoint folder under a temporary name, then rename it."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(_cpu(weights_of(model)), partial / "model.safetensors")
        if optimizer is not None:
            tensors, groups = _flatten(optimizer.state_dict())
            save_file(_cpu(tensors), partial / "optimizer.safetensors")
            state = state | {"param_groups": groups}
        (partial / "state.json").write_text(json.dumps({"format": FORMAT} | state))
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        reason = "the disk is full: free some space, or set out= to another disk" if full else str(error)
        raise UserError(
            f"the checkpoint {path} could not be written: {reason}. Earlier checkpoints are whole: the same "
            "command goes on from the last one."
        ) from error


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what a kill left half-written."""
    for path in [*numbered(folder)[: -max(1, keep)], *folder.glob("*.partial")]:
        shutil.rmtree(path, ignore_errors=True)


def numbered(folder: Path) -> list[Path]:
    """step-* folders, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".partial")


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be read, and a message for each newer one that cannot."""
    problems: list[str] = []
    for path in reversed(numbered(folder)):
        try:
            return read(path), problems
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(
            "\n".join(
                [*problems, f"No checkpoint in {folder} can be read. To start anew, choose another out=."]
            )
        )
    return None, []


def read(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint folder."""
    try:
        state = json.loads((path / "state.json").read_text())
        model = load_file(path / "model.safetensors", device=str(device))
        optimizer_file = path / "optimizer.safetensors"
        optimizer = load_file(optimizer_file, device=str(device)) if "param_groups" in state else {}
        missing = {"format", "update"} - state.keys()
        if missing or (optimizer_file.exists() and "param_groups" not in state):
            raise ValueError(f"state.json lacks {', '.join(sorted(missing)) or 'param_groups'}")
    except (OSError, ValueError, AttributeError, TypeError, SafetensorError) as error:
        raise UserError(f"the checkpoint {path} is damaged or incomplete ({error}).") from error
    if state.get("format") != FORMAT:
        raise UserError(
            f"the checkpoint {path} has format {state.get('format')}, this version reads {FORMAT}: "
            f"use the version of seqssl that wrote it (see config.yaml beside it)."
        )
    return Checkpoint(path, state, model, optimizer)


def load_weights(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load the weights; names and shapes must match exactly."""
    own = weights_of(model)
    given = checkpoint.model
    problems = [f"lacks {name}" for name in own.keys() - given.keys()]
    problems += [f"has {name}, which the model lacks" for name in given.keys() - own.keys()]
    problems += [
        f"has {name} of shape {tuple(given[name].shape)}, the model {tuple(own[name].shape)}"
        for name in own.keys() & given.keys()
        if own[name].shape != given[name].shape
    ]
    if problems:
        listed = "\n  ".join(sorted(problems)[:8])
        raise UserError(
            f"the checkpoint {checkpoint.path} does not fit the configured model: it\n  {listed}\n"
            f"({len(problems)} differences.) Use the run's own config, or another out=."
        )
    model.load_state_dict(given, strict=False)  # what goes by a second name is not in the checkpoint


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each under its first name: parts may share them."""
    seen: dict[int, str] = {}
    return {
        name: tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if seen.setdefault(id(tensor), name) == name
    }


def load_optimizer(optimizer: Optimizer, checkpoint: Checkpoint) -> None:
    """Restore the optimizer's state."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.optimizer.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": checkpoint.state["param_groups"]})


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    tensors = {
        f"{index}.{key}": value for index, slots in state["state"].items() for key, value in slots.items()
    }
    return tensors, state["param_groups"]


def _cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
