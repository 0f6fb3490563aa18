"""What holds for every test: one thread, shapes checked, seeded examples."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

# Before torch is imported: threads that wait for each other are slower than one on small tensors.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Shapes and types of every signature are checked, here and nowhere else. The hook acts on imports to come.
install_import_hook(["seqssl.model", "modalities"], "beartype.beartype")

settings.register_profile(
    "default", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


# Folders and files whose tests look at whole reports. Elsewhere curves and codes, most of the time that a
# report takes, are left blank; the work of a step is counted once for all toy runs of one shape, and the
# speed of the device, of which a run says the share, is measured once.
WHOLE_RUNS = ("field", "report", "test_catalogue.py", "test_every_recipe.py")


def blank(title: str, *_: object) -> str:
    """A panel without curves."""
    return f"<svg><!-- {title} --></svg>"


FOUND: dict[str, Any] = {}


def counted_once(config: Any, streams: Sequence[Any]) -> Any:
    """`cost_of`, or what it was for an earlier run of the same model and batches."""
    from seqssl.planning.cost import cost_of

    same = replace(
        config,
        out=None,
        init=None,
        seed=0,
        data=replace(config.data, source=None),
        train=replace(config.train, num_updates=1, log_every=1, eval_every=1, save_every=1),
    )
    key = repr((same, [(stream.spec, stream.weight) for stream in streams]))
    if key not in FOUND:
        FOUND[key] = cost_of(config, streams)
    return FOUND[key]


@cache
def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that keeps what it gave, the same one for each test."""
    return cache(function)


def pytest_collection_finish() -> None:
    """What imports have left is looked through no more for what can be freed."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Before fixtures of any scope, which train runs, too."""
    from seqssl.planning import hardware

    with pytest.MonkeyPatch.context() as patched:
        if not {item.path.parent.name, item.path.name} & {*WHOLE_RUNS}:
            patched.setattr("seqssl.report.curves._curve", blank)
            patched.setattr("seqssl.report.figures.code_sequence", lambda _: "data:,")
            patched.setattr("seqssl.runs.train.cost_of", counted_once)
            patched.setattr(hardware, "matmul_speed", once(hardware.matmul_speed))
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available() and os.environ.get("SEQSSL_TEST_DEVICE") != "cpu":
            pytest.skip("needs CUDA")
