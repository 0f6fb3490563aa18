"""Checkpoints: safetensors and JSON in a folder that appears whole or not at all; nothing is unpickled."""

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from seqssl.data.files import unlinked
from seqssl.errors import UserError

FORMAT = 2
READABLE = (1, 2)  # 1: quantizers stood beside the targets, sums were named otherwise
OLD = ".old.partial"  # ends the name of a checkpoint while another one takes its place
# End the names of weights that were added within format 2. A model keeps its own where they are not saved.
YOUNGER = ("targets.origin", "head.shortcut.weight", "average_head-shortcut-weight", "head.mean", "head.std")

ParamGroup = dict[str, bool | float | int | list[float] | list[int] | None]
Sums = dict[str, float | list[float] | list[list[float]]]


class OptimizerState(TypedDict):
    """The state of an optimizer."""

    tensors: dict[str, Tensor]  # "<number of the parameter>.<name>"
    groups: list[ParamGroup]


class _Known(TypedDict, total=False):
    """What a state may hold beside: it spares time, and nothing depends on it."""

    epochs: dict[str, list[int]]  # batches of each epoch so far, of each kind of data


class State(_Known):
    """How far a run is, in values that JSON can hold."""

    update: int
    cursor: int
    best: float | None
    tally: Sums


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read."""

    path: Path
    format: int
    state: State
    model: dict[str, Tensor]
    optimizer: OptimizerState | None


def save(path: Path, weights: Mapping[str, Tensor], optimizer: OptimizerState | None, state: State) -> None:
    """Write a checkpoint folder under a temporary name, then rename it; UserError where that fails."""
    partial, old = path.with_name(f"{path.name}.partial"), path.with_name(f"{path.name}{OLD}")
    groups: dict[str, list[ParamGroup]] = {}
    try:
        shutil.rmtree(unlinked(partial), ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(_cpu(weights), partial / "model.safetensors")
        if optimizer is not None:
            save_file(_cpu(optimizer["tensors"]), partial / "optimizer.safetensors")
            groups = {"param_groups": optimizer["groups"]}
        (partial / "state.json").write_text(json.dumps({"format": FORMAT, **state, **groups}))
        if path.exists():  # as `best` does; a folder cannot be renamed to one that has content
            shutil.rmtree(unlinked(old), ignore_errors=True)  # a kill may have left it there
            path.rename(old)
        partial.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # the first error is the one to report; `prune` tries again
            _put_back(old)
        # safetensors reports a full disk in its message only.
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        reason = "the disk is full: free some space, or set out= to another disk" if full else str(error)
        raise UserError(
            f"the checkpoint {path} could not be written: {reason}. Earlier checkpoints are whole: the same "
            "command goes on from the last one."
        ) from error


def _put_back(old: Path) -> None:
    """Give a checkpoint its own name again if the one that was to take its place did not get there."""
    path = old.with_name(old.name.removesuffix(OLD))
    if old.exists() and not path.exists():
        old.rename(path)


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what a killed run left half-written.

    A whole checkpoint that a killed run had renamed, to replace it, gets its own name again.
    """
    for old in [*folder.glob(f"*{OLD}")]:
        _put_back(old)
    for path in [*numbered(folder)[: -max(1, keep)], *folder.glob("*.partial")]:
        shutil.rmtree(path, ignore_errors=True)


def numbered(folder: Path) -> list[Path]:
    """step-* folders, oldest first."""
    # By name: the numbers in names have leading zeros.
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".partial")


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that can be read, and a message for each newer one that cannot.

    None where there is no checkpoint; UserError where there are some and none can be read.
    """
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
    """Read a checkpoint folder; UserError where it is damaged, or of a format that is not known here."""
    optimizer_file = path / "optimizer.safetensors"
    try:
        stored = json.loads((path / "state.json").read_text())
        model = load_file(path / "model.safetensors", device=str(device))
        missing = {"format", "update"} - stored.keys()
        if missing or (optimizer_file.exists() and "param_groups" not in stored):
            raise ValueError(f"state.json lacks {', '.join(sorted(missing)) or 'param_groups'}")
        optimizer = None
        if "param_groups" in stored:
            tensors = load_file(optimizer_file, device=str(device))
            optimizer = OptimizerState(tensors=tensors, groups=_groups_of(stored["param_groups"]))
        number = stored["format"]
        # The state of another format is not looked at: it would be called damaged, and it is only unknown.
        state = _state_of(stored) if number in READABLE else State(update=0, cursor=0, best=None, tally={})
    except (OSError, ValueError, AttributeError, TypeError, SafetensorError) as error:
        raise UserError(f"the checkpoint {path} is damaged or incomplete ({error}).") from error
    if number not in READABLE:
        raise UserError(
            f"the checkpoint {path} has format {number}, this version reads {FORMAT}: "
            f"use the version of seqssl that wrote it (see config.yaml beside it)."
        )
    return Checkpoint(path, number, state, model, optimizer)


def _groups_of(stored: object) -> list[ParamGroup]:
    """The optimizer's groups, as `save` writes them. ValueError."""
    whole = isinstance(stored, list) and all(
        isinstance(group, dict) and isinstance(group.get("params"), list) for group in stored
    )
    if not isinstance(stored, list) or not whole:
        raise ValueError("param_groups is no list of groups with their params")
    return stored


def _state_of(stored: Mapping[str, object]) -> State:
    """The progress of a run from state.json; ValueError for values of other types."""
    numbers = {name: stored.get(name, 0) for name in ("update", "cursor")}
    best, tally = stored.get("best"), stored.get("tally", {})  # format 1 had none under this name
    for name, value in numbers.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} in state.json is {value!r}")
    if not isinstance(best, float | int | None) or not isinstance(tally, dict):
        raise ValueError("best or tally in state.json has another type")
    update, cursor = (int(str(value)) for value in numbers.values())
    epochs = stored.get("epochs", {})
    if not isinstance(epochs, dict) or not all(map(_are_sizes, epochs.values())):
        raise ValueError("epochs in state.json has another type")
    return State(update=update, cursor=cursor, best=best, tally=tally, epochs=epochs)


def _are_sizes(value: object) -> bool:
    """Whether a value from JSON is a list of positive whole numbers."""
    return isinstance(value, list) and all(type(size) is int and size > 0 for size in value)


def fitting(
    model: nn.Module, saved: Checkpoint, spare: Callable[[str], bool] = lambda name: False
) -> dict[str, Tensor]:
    """The saved weights under the model's own names; UserError unless names and shapes match exactly.

    Those that are `spare` may be missing.
    """
    own = weights_of(model)
    given = {name: x for name, x in own.items() if name.endswith(YOUNGER)} | renamed(saved, own)
    problems = [f"lacks {name}" for name in own.keys() - given.keys() if not spare(name)]
    problems += [f"has {name}, which the model lacks" for name in given.keys() - own.keys()]
    problems += [
        f"has {name} of shape {tuple(given[name].shape)}, the model {tuple(own[name].shape)}"
        for name in own.keys() & given.keys()
        # A buffer without entries is fitted to data, and takes the shape that it was given there.
        if own[name].shape != given[name].shape and own[name].numel()
    ]
    if problems:
        listed = "\n  ".join(sorted(problems)[:8])
        raise UserError(
            f"the checkpoint {saved.path} does not fit the configured model: it\n  {listed}\n"
            f"({len(problems)} differences.) Use the run's own config, or another out=."
        )
    return given


def renamed(saved: Checkpoint, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The saved weights under today's names, where an older format had others.

    A user's task may have saved the model as a part of its own. The prefix of that part is then removed, and
    what does not belong to the part is left out. If it saved running means of weights beside them, these are
    taken, as they are by whoever opens the run. Low-rank additions (LoRA) are added to the maps they change.
    """
    given = dict(saved.model)
    if saved.format == 1:  # the quantizer was a part of the model, not of its targets
        for name in own:
            old = re.sub(r"(^|\.)targets\.project\.", r"\1quantizer.project.", name)
            old = re.sub(r"(^|\.)targets\.(?:first\.|second\.)?quantizer\.", r"\1quantizer.", old)
            if old in given:
                given[name] = given.pop(old)
    # Each pre-training model has this weight once, so its name shows where in a larger model that is. A model
    # that reads another one's codes holds that, deeper down.
    marker = "input_projection.weight"
    holders = [name.removesuffix(marker) for name in given if name.endswith(f".{marker}")]
    holders = [
        name for name in holders if not any(name != other and name.startswith(other) for other in holders)
    ]
    if marker in own and marker not in given and len(holders) == 1:
        inside = len(holders[0])
        outer = holders[0].rpartition(".")[0].rpartition(".")[0]
        means = f"{outer}." if outer else ""
        part = {
            name[inside:]: given.get(means + average_of(name.removeprefix(means)), value)
            for name, value in given.items()
            if name.startswith(holders[0])
        }
        return part if any(".lora_" in name for name in own) else added(part)
    return given


def average_of(name: str) -> str:
    """The name of the running mean of a weight, which is saved beside it: names of buffers have no dots."""
    return f"average_{name.replace('.', '-')}"


def added(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with low-rank additions added, under the names that they have without; their scale is 1."""
    found: dict[str, Tensor] = {}
    for name, value in given.items():
        if ".lora_" in name:
            continue
        stem = name.removesuffix("base_layer.weight")
        down, up = (f"{stem}lora_{side}.default.weight" for side in "AB")
        changed = stem != name and down in given
        found[name.replace(".base_layer.", ".")] = value + given[up] @ given[down] if changed else value
    return found


def load_weights(
    model: nn.Module, saved: Checkpoint, spare: Callable[[str], bool] = lambda name: False
) -> None:
    """Load saved weights; UserError unless names and shapes match exactly, but for those that are `spare`."""
    # Second names of shared weights are not in it.
    model.load_state_dict(fitting(model, saved, spare), strict=False)


def digest(saved: Checkpoint) -> int:
    """A number by which other weights show: 63 bits of a SHA-256 over all of them."""
    found = hashlib.sha256()
    for name in sorted(saved.model):
        found.update(name.encode())
        found.update(
            saved.model[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return int.from_bytes(found.digest()[:8], "big") >> 1


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once and under its first name: parts may share them."""
    first: dict[int, str] = {}
    return {
        name: tensor
        for name, tensor in model.state_dict(keep_vars=True).items()  # copies would hide what is shared
        if first.setdefault(id(tensor), name) == name
    }


def state_of(optimizer: Optimizer) -> OptimizerState:
    """The state of an optimizer, with tensors named by the number of the parameter and their own name."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": value for index, slots in state["state"].items() for key, value in slots.items()
    }
    return OptimizerState(tensors=tensors, groups=state["param_groups"])


def load_optimizer(optimizer: Optimizer, saved: OptimizerState) -> None:
    """Restore the state that `state_of` gave; UserError where it is that of other parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in saved["tensors"].items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    try:
        optimizer.load_state_dict({"state": state, "param_groups": saved["groups"]})
    except ValueError as error:  # another release may let other parts of a model learn
        raise UserError(
            f"the saved optimizer is one of other parameters ({error}): begin anew with another out=."
        ) from error


def _cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in main memory, detached and contiguous, as safetensors wants them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
