"""From sums over micro-steps to metrics."""

import torch
from torch import Tensor

from seqssl import Batch, Output, Plan
from seqssl.training.codes import code_summary
from seqssl.training.parallel import Alone
from seqssl.training.tally import Tally
from seqssl.training.tasks import PretrainTask


def step(codes: Tensor, size: int = 5) -> tuple[Output, Plan, Batch]:
    """What a micro-step gives: 3 x 2 correct and 20 seen frames, whatever the codes."""
    n, g = codes.shape
    counts = torch.zeros(g, size, dtype=torch.long).scatter_add_(1, codes.T, torch.ones_like(codes.T))
    sums = {
        "masked_prediction/accuracy": torch.tensor(2.0),
        "masked_prediction_seen/frames": torch.tensor(20),
        "codes": counts,
        "usage": torch.full((g, 4), 0.25) * n,
        "masked": torch.tensor([n]),
        "maskable": torch.tensor([2 * n]),
        "features/std": torch.tensor(3.0),
    } | {f"masked_prediction/accuracy_{book}": torch.tensor(2.0) for book in range(g)}
    sums |= {"masked_prediction/nats": torch.ones(g)}
    terms = {"masked_prediction": torch.tensor(6.0), "masked_prediction_seen": torch.tensor(10.0)}
    plan = Plan(dict.fromkeys(terms, torch.tensor(n)))
    batch = Batch(torch.zeros(1, max(1, n), 1), torch.tensor([n]))
    return Output(terms, {"masked_prediction": 1.0, "masked_prediction_seen": 0.5}, sums), plan, batch


def summarize(sums: dict[str, Tensor], stream: str) -> dict[str, float]:
    return code_summary(sums, ["masked_prediction"])


def test_codes_are_counted_in_their_own_codebook() -> None:
    codes = torch.tensor([[0, 3], [0, 2], [1, 3]])
    tally = Tally()
    tally.add(*step(codes))
    tally.add(*step(codes[:0]))
    for g, column in enumerate(codes.T):
        assert torch.equal(tally.sums["|sum|codes"][g], torch.bincount(column, minlength=5).double())
    metrics = tally.close(summarize)
    assert metrics["perplexity/size"] == 4  # that of the learned ones; heads may have more
    assert metrics["codes/dead_0"] == 0.5
    assert metrics["mask/share"] == 0.5
    assert metrics["features/std"] == 3  # the mean over micro-steps


def test_seen_frames_show_their_mean_and_weigh_as_masked_ones() -> None:
    tally = Tally()
    tally.add(*step(torch.tensor([[0], [1], [1]])))
    metrics = tally.close()
    assert metrics["loss/masked_prediction"] == 2 and metrics["loss/masked_prediction_seen"] == 0.5
    assert abs(metrics["loss"] - (6 / 3 + 0.5 * 10 / 3)) < 1e-9
    assert "masked_prediction_seen/frames" not in metrics


def test_a_term_is_divided_by_its_own_count() -> None:
    """Tokens, rows and frames side by side; what was never counted is left out."""
    tally, batch = Tally(), Batch(torch.zeros(1, 4, 1), torch.tensor([4]))
    for tokens, total in ((2, 6.0), (6, 2.0)):
        terms = {"tokens": torch.tensor(total), "rows": torch.tensor(3.0), "none": torch.tensor(9.0)}
        counts = {"tokens": torch.tensor(tokens), "rows": torch.tensor(1), "none": torch.tensor(0)}
        tally.add(Output(terms, {"tokens": 1.0, "rows": 2.0, "none": 1.0}), Plan(counts), batch)
    metrics = tally.close()
    assert metrics["loss/tokens"] == 1 and metrics["loss/rows"] == 3
    assert metrics["loss"] == 1 + 2 * 3


def test_ranks_add_up_on_their_device() -> None:
    class Ranks(Alone):
        def sum(self, value: Tensor) -> Tensor:
            assert value.device.type == "meta"
            return value

    tally = Tally()
    tally.add(*step(torch.tensor([[0], [1]])))
    merged = tally.merged(Ranks(), torch.device("meta"))
    assert {value.device.type for value in merged.sums.values()} == {"meta"}


class Two(Alone):
    """Another rank has the same sums."""

    rank, size = 0, 2

    def sum(self, value: Tensor) -> Tensor:
        return 2 * value


def test_what_is_about_updates_counts_once_on_several_ranks() -> None:
    """Before, two ranks that skipped one update together reported two."""
    tally = Tally()
    tally.add(*step(torch.tensor([[0], [1]])))
    tally.add_update(torch.tensor(3.0))
    tally.add_update(torch.tensor(float("nan")))
    metrics = tally.merged(Two(), torch.device("cpu")).close()
    assert metrics["skipped_updates"] == 1 and metrics["grad_norm"] == 3


def test_a_resumed_tally_holds_the_sums_of_all_ranks_once() -> None:
    tally, cpu = Tally(), torch.device("cpu")
    tally.add(*step(torch.tensor([[0], [1]])))
    tally.add_update(torch.tensor(3.0))
    state = tally.merged(Two(), cpu).state()
    ranks = [Tally.restore(state, cpu, holds_sums=first) for first in (True, False)]
    for name, value in ranks[0].sums.items():
        whole = value + ranks[1].sums[name] if "|" in name else value
        expected = tally.sums[name] * (2 if "|" in name else 1)
        assert torch.equal(whole, expected), name


def test_a_tally_goes_on_from_its_state() -> None:
    tally = Tally()
    tally.add(*step(torch.tensor([[0], [1]])))
    restored = Tally.restore(tally.state(), torch.device("cpu"))
    for each in (tally, restored):
        each.add(*step(torch.tensor([[0], [1]])))
    assert restored.close(summarize) == tally.close(summarize)
    assert restored.close()["loss/masked_prediction"] == 3


def test_the_task_of_pre_training_summarizes() -> None:
    assert hasattr(PretrainTask, "summarize")
