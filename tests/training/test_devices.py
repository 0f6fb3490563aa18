"""What holds on GPUs and clusters, as far as a CPU can show it: where things are, who waits for whom."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_runs import quiet_train
from torch import Tensor, nn
from toy import Drawing, Pictured, Toy, toy_arguments, toy_config

import seqssl
from seqssl import Batch, Encoder, Sample, UserError, assembly, build_model, cli
from seqssl.assembly import streams_of
from seqssl.config.schema import DataConfig
from seqssl.data.files import silent
from seqssl.errors import FirstRankFailed
from seqssl.evaluation import frames
from seqssl.model.clusters import InputClusters
from seqssl.model.description import InputDescription
from seqssl.model.targets import FrozenTeacher
from seqssl.model.types import sent
from seqssl.report.illustration import illustrate
from seqssl.runs import fitting, streams
from seqssl.runs.train import check_shared
from seqssl.training import optim, ranks
from seqssl.training.parallel import Alone, Replicated
from seqssl.training.watch import Watch

CPU, GPU, META = (torch.device(name) for name in ("cpu", "cuda", "meta"))


class Moved(Tensor):
    """A tensor that was moved to a device, in the place of one that is on a GPU."""


def random_batch(*lengths: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.randn(len(lengths), max(lengths), 2, generator=generator), torch.tensor(lengths))


def test_a_row_is_drawn_where_the_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, every run with a picture of its inputs ended on a GPU with an error, in its report."""
    seen: list[bool] = []
    draw = Drawing.picture

    def watched(self: Drawing, inputs: Tensor, lengths: Tensor) -> Tensor:
        seen.append(isinstance(inputs, Moved))
        return draw(self, inputs, lengths)

    def moved(self: Batch, device: object) -> Batch:
        return replace(self, inputs=self.inputs.as_subclass(Moved), lengths=self.lengths.as_subclass(Moved))

    model = build_model(toy_config(tmp_path, tmp_path, "modality=toy:Pictured"))
    monkeypatch.setattr(Drawing, "picture", watched)
    monkeypatch.setattr(Batch, "to", moved)
    assert illustrate(model, [random_batch(40, 33)], Pictured()).image.shape == (2, 40)
    assert seen == [True]


def test_nothing_waits_for_what_a_gpu_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(
        Tensor, "to", lambda self, device, non_blocking: calls.append(str(non_blocking)) or self
    )
    batch = random_batch(4, 3)
    batch.to("cuda")
    assert calls == ["pinned", "True"] * 2  # the inputs and the lengths
    calls.clear()
    sent(batch.inputs, CPU)
    assert calls == ["True"]
    calls.clear()
    assert batch.pin_memory().keys == batch.keys and calls == ["pinned"] * 2


def test_the_places_of_codes_are_where_the_clusters_are() -> None:
    """They move with the module, and are no part of what is saved: older runs are read as before."""
    with META:
        reader = Drawing()
        clusters = InputClusters(reader, InputDescription(reader, 4.0, channels=2), neighbors=1)
    assert clusters._places.device == META and len(clusters._places) == 3
    assert [*clusters.state_dict()] == ["centroids"]


def test_clipping_is_bit_for_bit_what_it_was() -> None:
    for norm, grads in ((3.0, 1.0), (0.01, 1.0), (torch.nan, 1.0), (torch.inf, torch.inf)):
        found = [nn.Parameter(torch.zeros(size)) for size in ((3, 5), (7,), ())]
        for number, p in enumerate(found):
            p.grad = grads * torch.randn(p.shape, generator=torch.Generator().manual_seed(number))
        norm = torch.tensor(norm)
        scale = (0.5 / (norm + optim.TINY)).clamp(max=1.0)
        wanted = [p.grad.clone().mul_(scale).masked_fill_(~torch.isfinite(norm), 0.0) for p in found]
        optim.clip_gradients(found, norm, 0.5)
        assert all(torch.equal(p.grad, x) for p, x in zip(found, wanted, strict=True))
    optim.clip_gradients([nn.Parameter(torch.zeros(1))], torch.tensor(0.0), 0.5)  # there is no gradient


@pytest.mark.parametrize(("backend", "failed", "leaves"), [("nccl", True, False), ("nccl", False, True),
                                                           ("gloo", True, True)])  # fmt: skip
def test_a_rank_that_fails_alone_waits_for_nobody(
    backend: str, failed: bool, leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, an error on one GPU of several left the job hanging for hours."""
    left: list[str] = []
    codes: list[int] = []
    monkeypatch.setattr(ranks.dist, "is_initialized", lambda: not left)
    monkeypatch.setattr(ranks.dist, "get_backend", lambda: backend)
    monkeypatch.setattr(ranks.dist, "destroy_process_group", lambda: left.append("the group"))
    monkeypatch.setattr(ranks.atexit, "register", lambda *_: None)
    monkeypatch.setattr(os, "_exit", codes.append)
    ranks.stop(Replicated(1, 2), failed=failed)
    assert bool(left) == leaves
    assert cli.main(["--version"]) == 0 and not codes
    assert cli.main(["nothing"]) == 2
    assert codes == ([] if leaves else [2])


def test_a_run_says_whether_it_failed(waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[bool] = []
    monkeypatch.setattr("seqssl.runs.train.stop", lambda parallel, **how: failed.append(how["failed"]))
    quiet_train(waves, tmp_path / "run", "train.num_updates=1")
    with pytest.raises(UserError, match="keep_best"):
        quiet_train(waves, tmp_path / "other", "train.keep_best=min:probe/nothing")
    assert failed == [False, True]


class Apart(Alone):
    """A rank among others that find something else in the folder of the run."""

    def __init__(self, rank: int, others: str) -> None:
        self.rank, self.size, self.others = rank, 2, others

    def everyones(self, texts: Any) -> list[str]:
        return [*texts, self.others]


def test_ranks_must_see_the_same_checkpoints(tmp_path: Path) -> None:
    """Before, those of another node began anew, and trained other weights than the rest."""
    for step in (3, 6):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    check_shared(tmp_path, Apart(0, "step-00000003, step-00000006"))
    with pytest.raises(
        UserError, match=r"step-00000006 \| no checkpoint: it must be on a disk that all nodes"
    ):
        check_shared(tmp_path, Apart(0, "no checkpoint"))
    with pytest.raises(FirstRankFailed):  # and says no more
        check_shared(tmp_path, Apart(1, "no checkpoint"))


@pytest.mark.parametrize(
    ("wanted", "device", "cores", "local", "room", "number"),
    [("auto", CPU, 16, "1", 2**34, 0), ("auto", GPU, 16, "1", 2**34, 8), ("auto", GPU, 16, "4", 2**34, 4),
     ("auto", GPU, 2, "8", 2**34, 1), ("auto", GPU, 16, "1", 2**26, 0), (3, CPU, 1, "1", 2**26, 3)],
)  # fmt: skip
def test_a_gpu_is_fed_by_the_cores_beside_it(
    wanted: Any, device: torch.device, cores: int, local: str, room: int, number: int,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Before, the one process that drives a GPU also read all batches."""
    monkeypatch.setattr(streams.hardware, "num_cores", lambda: cores)
    monkeypatch.setattr(streams, "SHARED", tmp_path)
    monkeypatch.setattr(streams.shutil, "disk_usage", lambda path: SimpleNamespace(free=room))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    assert streams.workers_of(DataConfig(workers=wanted), device) == number


def toy_stream(waves: Path, tmp_path: Path) -> assembly.OpenStream:
    (stream,) = streams_of(toy_config(waves, tmp_path / "run"))
    return streams.opened(stream, Alone(), CPU, silent)


def test_a_rank_that_prepares_for_itself_is_not_late(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of another node, say, whose disk the first rank has not prepared."""

    class Second(Alone):
        rank, size = 1, 2
        watch = Watch(SimpleNamespace(), 1, 2)  # type: ignore[arg-type]

    prepare, busy = streams.open_or_prepare, list[int]()

    def noted(*arguments: Any, **named: Any) -> Any:
        busy.append(Second.watch._busy)
        return prepare(*arguments, **named)

    monkeypatch.setattr(streams, "open_or_prepare", noted)
    (stream,) = streams_of(toy_config(waves, tmp_path / "run"))
    assert streams.opened(stream, Second(), CPU, silent).corpus is not None
    assert busy == [1] and Second.watch._busy == 0


def test_held_out_batches_are_read_ahead_too(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []

    def loader(*_: Any, **options: Any) -> SimpleNamespace:
        made.append(options)
        return SimpleNamespace(batches=lambda epoch, limit: iter(()))

    stream = toy_stream(waves, tmp_path)
    monkeypatch.setattr(streams, "BatchLoader", loader)
    monkeypatch.setattr(streams, "workers_of", lambda data, device, beside: 5)
    assert not [*streams.held_out([stream], seed=0, device=GPU), *streams.held_out([stream], seed=0)]
    assert [(each["workers"], each["pinned"]) for each in made] == [(5, True), (0, False)]


def test_targets_are_fitted_to_all_of_little_data_and_to_a_share_of_much(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream, told = toy_stream(waves, tmp_path), []
    whole = [batch.keys for batch in streams.loader(stream, "train", 0, shuffle=False).batches(0)]

    def read(**targets: Any) -> list[list[str]]:
        model = SimpleNamespace(targets=SimpleNamespace(**targets), stride=4.0)
        found = fitting._batches_to_fit(model, stream, 0, CPU, lambda *how: told.append(how))  # type: ignore[arg-type]
        return [batch.keys for batch in found]

    assert read() == read(max_frames=10**6) == whole
    assert told == [(number, len(whole), "fitting targets") for number in range(1, len(whole) + 1)] * 2
    monkeypatch.setattr(fitting, "SPARE", 1)
    part = read(max_frames=60)  # of some 200
    assert 1 < len(part) < len(whole) and all(keys in whole for keys in part)


def test_clusters_are_fitted_where_the_run_computes(waves: Path, tmp_path: Path) -> None:
    """Before, on the CPU, while every GPU waited. Learned codes read the model, which is still there."""
    stream = toy_stream(waves, tmp_path)
    for targets, device in ((InputClusters.__new__(InputClusters), META), (SimpleNamespace(), CPU)):
        model = SimpleNamespace(targets=targets, stride=4.0)
        batches = fitting._batches_to_fit(model, stream, 0, META, silent)  # type: ignore[arg-type]
        assert {batch.inputs.device for batch in batches} == {device}


def test_blocks_are_compiled_once_the_precision_is_known(
    waves: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def noted(name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        order.append(name)
        return work(*arguments)

    found = seqssl.runs.train.precision_of_run
    monkeypatch.setattr("seqssl.runs.train.precision_of_run", partial(noted, "precision", found))
    monkeypatch.setattr("seqssl.runs.train.compile_blocks", partial(noted, "blocks", lambda model: None))
    quiet_train(waves, tmp_path / "run", "train.num_updates=1", "train.compile=true")
    assert order == ["precision", "blocks"]


def test_what_a_teacher_says_does_not_depend_on_the_precision(tmp_path: Path) -> None:
    teacher, batch = FrozenTeacher(build_model(toy_config(tmp_path, tmp_path)), [""]), random_batch(40, 33)
    exact = teacher(batch).x
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(teacher(batch).x, exact) and exact.dtype == torch.float32


def test_a_probe_of_frames_leaves_the_model_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, it stayed on the CPU, where everything that followed was computed."""
    encoder = Encoder(build_model(toy_config(tmp_path, tmp_path)), Toy().spec, batch_inputs=100)
    monkeypatch.setattr(Encoder, "device", META)
    frames.inputs(encoder, [Sample(np.zeros((40, 2), np.float32))])
    assert next(encoder.model.parameters()).device == META


def test_arguments_of_a_run_say_auto(waves: Path, tmp_path: Path) -> None:
    """What is resolved is not written down: another machine resolves it anew."""
    assert cli.main(["train", *toy_arguments(waves, tmp_path / "run", "train.num_updates=1")]) == 0
    assert "workers: auto" in (tmp_path / "run" / "config.yaml").read_text()
