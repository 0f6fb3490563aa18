"""What every task must do, tried on batches of yours. A factory gives the task with its model."""

import copy
import math
from collections.abc import Callable, Sequence

import torch

from seqssl.model.protocols import Task
from seqssl.model.types import Batch, Draws, Output, Plan
from seqssl.testing.harness import Check, named, require, require_close, require_finite, run_checks

Factory = Callable[[], Task]
DRAWS = Draws((0, 0, 0), 1.0)


def check_task(factory: Factory, batches: Sequence[Batch]) -> None:
    """Run every check on the task that `factory()` gives; raises `ChecksFailed` naming all that failed."""
    run_checks("the task", task_checks(), factory, batches)


def task_checks() -> list[Check]:
    """The checks by name; each takes the factory and some batches."""
    return named(
        counts_are_single_numbers,
        every_term_is_planned_and_weighed,
        terms_are_finite_numbers,
        a_step_depends_on_its_draws_alone,
        a_step_keeps_the_weights,
        something_is_trained,
        evaluation_gives_numbers,
        evaluation_leaves_no_trace,
    )


def counts_are_single_numbers(factory: Factory, batches: Sequence[Batch]) -> None:
    """`plan` says on the CPU what each term sums over: a number from 0 on, the same terms for every batch."""
    task = factory()
    plans = [task.plan(batch, DRAWS) for batch in batches]
    require(plans[0].counts, "no term is planned")
    for plan in plans:
        require(plan.counts.keys() == plans[0].counts.keys(), "batches have different terms")
        for name, count in plan.counts.items():
            require(count.dim() == 0, f"the count of {name} has shape {[*count.shape]}; it is one number")
            require(count.device.type == "cpu", f"the count of {name} is on {count.device}, not on the CPU")
            require(0 <= float(count) < math.inf, f"the count of {name} is {float(count)}")


def every_term_is_planned_and_weighed(factory: Factory, batches: Sequence[Batch]) -> None:
    """A step gives the terms that were planned, each with a weight."""
    task = factory()
    for batch in batches:
        plan, output = _stepped(task, batch)
        planned, found, weighed = plan.counts.keys(), output.terms.keys(), output.weights.keys()
        require(found == planned, f"planned were {sorted(planned)}, a step gives {sorted(found)}")
        require(weighed >= found, f"no weight for {sorted(found - weighed)}")


def terms_are_finite_numbers(factory: Factory, batches: Sequence[Batch]) -> None:
    """Each term is one finite number, and 0 where it sums over nothing."""
    task = factory()
    for batch in batches:
        plan, output = _stepped(task, batch)
        for name, term in output.terms.items():
            require(term.dim() == 0, f"the term {name} has shape {[*term.shape]}; it is a sum: one number")
            require_finite(term, f"the term {name}")
            count = plan.counts.get(name)
            if count is not None and not count:
                require(not term, f"the term {name} sums over nothing and is {float(term):g}")
        for name, value in output.sums.items():
            require_finite(value.float(), f"the statistic {name}")


def a_step_depends_on_its_draws_alone(factory: Factory, batches: Sequence[Batch]) -> None:
    """The same batch and draws give the same terms, whatever was drawn elsewhere."""
    task = factory()
    torch.manual_seed(0)
    one = _stepped(task, batches[0])[1]
    torch.manual_seed(0)
    torch.rand(3)
    task.plan(batches[-1], Draws((0, 0, 1), 1.0))
    torch.manual_seed(0)
    two = _stepped(task, batches[0])[1]
    for name, term in one.terms.items():
        require_close(two.terms[name], term, f"the term {name} differs", tolerance=1e-6)


def a_step_keeps_the_weights(factory: Factory, batches: Sequence[Batch]) -> None:
    """Only the optimizer changes parameters."""
    task = factory()
    before = copy.deepcopy(dict(task.model.named_parameters()))
    _stepped(task, batches[0])
    for name, p in task.model.named_parameters():
        require(torch.equal(p, before[name]), f"a step changes {name}")


def something_is_trained(factory: Factory, batches: Sequence[Batch]) -> None:
    """The weighted terms have a gradient that reaches a parameter, and is finite wherever it does."""
    task = factory()
    output = _stepped(task, batches[0])[1]
    total = torch.stack([output.weights.get(n, 1.0) * x for n, x in output.terms.items()]).sum()
    require(total.requires_grad, "no term carries a gradient")
    total.backward()
    reached = {n: p.grad for n, p in task.model.named_parameters() if p.grad is not None}
    require(any(grad.any() for grad in reached.values()), "no gradient reaches the model")
    for name, grad in reached.items():
        require_finite(grad, f"the gradient of {name}")


def evaluation_gives_numbers(factory: Factory, batches: Sequence[Batch]) -> None:
    """`evaluate` gives plain numbers, the same each time, one of them the loss."""
    task = factory()
    one, two = task.evaluate(batches), task.evaluate(batches)
    require(all(isinstance(value, float | int) for value in one.values()), "a metric is no plain number")
    require("loss" in one, f"there is no loss among {sorted(one)}: the best weights are chosen by it")
    require(math.isfinite(one["loss"]), f"the loss is {one['loss']}")
    require(one == two, "two evaluations differ")


def evaluation_leaves_no_trace(factory: Factory, batches: Sequence[Batch]) -> None:
    """After it the model is in training, as before, and its weights are the same."""
    task = factory()
    task.model.train()
    before = copy.deepcopy(task.model.state_dict())
    task.evaluate(batches)
    require(task.model.training, "evaluation leaves the model in evaluation: call model.train() at its end")
    after = task.model.state_dict()
    require(all(torch.equal(after[name], x) for name, x in before.items()), "evaluation changes the model")


def _stepped(task: Task, batch: Batch) -> tuple[Plan, Output]:
    """A micro-step in training."""
    task.model.train()
    plan = task.plan(batch, DRAWS)
    return plan, task.step(batch, plan, DRAWS)
