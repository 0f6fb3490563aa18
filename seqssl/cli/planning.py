"""What `seqssl plan` does and shows."""

from typing import TYPE_CHECKING

from seqssl.cli.commands import Arguments, resolved_recipe
from seqssl.cli.surface import ASSUMED
from seqssl.cli.terminal import show, show_progress
from seqssl.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from seqssl.planning.cluster import Choice
    from seqssl.planning.plan import Budget
    from seqssl.studies.batches import Search


def plan(arguments: Arguments) -> None:
    """Show what a run will cost."""
    devices = arguments["devices"]
    if devices < 1:
        raise UserError(f"devices = {devices}: must be at least 1")
    resolved_recipe(arguments["recipe"], arguments.overrides)  # it says what was chosen
    from seqssl.planning import plan as planning
    from seqssl.planning.assumptions import Assumptions

    assumed = Assumptions(**{key.name: arguments[key.name] for key in ASSUMED})
    own = arguments["recipe"], *arguments.overrides
    waiting, parts = planning.stage_of(*own), planning.by_stage(*own)
    measured = []
    if arguments["measure"]:
        from seqssl.studies.pace import measured_speed

        with show_progress() as progress:
            measured.append(measured_speed(parts, waiting, progress))
    for stage, config in parts.items():
        found = planning.plan(
            config, devices, arguments["device"],
            assumed=assumed, hours=arguments["hours"], measured=measured, stage=stage, waiting=waiting,
        )  # fmt: skip
        show(plan_tables(found))
    if arguments["find_batch"]:
        from seqssl.studies.batches import find_batch

        with show_progress() as progress:
            search = find_batch(own[0], own[1:], devices, progress)
        show(batch_tables(search))


def plan_tables(plan: "Budget") -> "RenderableType":
    """Parameters, memory and time."""
    from rich.console import Group

    shown: list[RenderableType] = [_parts(plan), _micro_batch(plan), "", _memory(plan)]
    shown += [_choices(plan), _cheapest(plan), ""]
    if len(plan.fewer) > 1:
        shown.append(_fewer(plan))
    return Group(*shown, _here(plan), *(f"- {note}" for note in _notes(plan)))


def _table(title: str, *columns: str) -> "Table":
    """An empty table with narrow gaps."""
    from seqssl.cli.tables import empty_table

    table = empty_table(title, *columns)
    table.collapse_padding = True
    return table


def _parts(plan: "Budget") -> "Table":
    """What the model consists of."""
    title = f"{plan.title}: {plan.cost.parameters / 1e6:,.1f}M parameters"
    table = _table(title, "part", "parameters", "GFLOP forward")
    for part in plan.cost.parts:
        table.add_row(part.name, f"{part.parameters:,}", f"{part.forward_flops / 1e9:,.1f}")
    return table


def _micro_batch(plan: "Budget") -> str:
    """What is computed at once, and in an update."""
    cost = plan.cost
    rows = "1 row" if cost.rows == 1 else f"{cost.rows} rows"
    return (
        f"A micro-batch is {rows} of {cost.row_input:g} {cost.unit} ({cost.row_frames} frames);"
        f" forward and backward take {cost.micro_flops / 1e12:,.3f} TFLOP in {cost.precision}."
        f" An update reads {plan.update_input:,.0f} {cost.unit}."
    )


def _where(choice: "Choice") -> tuple[str, str]:
    """Where weights are, and how often blocks are run."""
    return str(choice.shards), "twice" if choice.checkpointed else "once"


def _memory(plan: "Budget") -> "Table":
    """Memory for each choice."""
    kinds = ("weights", "gradients", "optimizer", "activations", "buffers")
    title = f"Memory of each device, GiB ({plan.choices[0].devices} x {plan.gpu})"
    table = _table(title, "shards", "blocks", *kinds, "total")
    for choice in plan.choices:
        numbers = [*(getattr(choice.load, kind) for kind in kinds), choice.load.total]
        table.add_row(*_where(choice), *(f"{number / 2**30:,.2f}" for number in numbers))
    return table


def _choices(plan: "Budget") -> "Table":
    """Time for each choice."""
    devices = plan.choices[0].devices
    title = f"Seconds of an update, and time of {plan.num_updates:,} ({devices} x {plan.gpu})"
    columns = ("shards", "blocks", "fits", "computing", "network", "update", "time", "device-hours")
    table = _table(title, *columns)
    for choice in plan.choices:
        own = (_number(choice.compute), _number(choice.network))
        table.add_row(*_where(choice), _fits(choice), *own, *_times(plan, choice))
    return table


def _fits(choice: "Choice") -> str:
    """Whether memory holds it."""
    return "yes" if choice.fits else "no"


def _times(plan: "Budget", choice: "Choice") -> tuple[str, str, str]:
    """Seconds of an update, the time of all, and the hours that devices are taken for it."""
    from seqssl.cli.tables import duration

    seconds = plan.num_updates * choice.seconds
    return _number(choice.seconds), duration(seconds), f"{choice.devices * seconds / 3600:,.0f}"


def _number(value: float) -> str:
    """Three digits that matter, never an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 1e-3 else f"{value:.4f}"


def _cheapest(plan: "Budget") -> str:
    """The settings of the cheapest choice that fits."""
    from seqssl.planning.cluster import cheapest

    best = cheapest(plan.choices)
    if not best.fits:
        return "Nothing fits: take a shorter data.batch_* with more train.accumulate, or more devices."
    return (
        f"The cheapest that fits: train.accumulate={best.accumulate} train.shards={best.shards}"
        f" train.checkpoint_activations={str(best.checkpointed).lower()}"
    )


def _fewer(plan: "Budget") -> "Table":
    """Time for several numbers of devices."""
    columns = ("devices", "accumulate", "shards", "blocks", "fits", "update", "time", "device-hours")
    table = _table(f"The cheapest that fits, by number of {plan.gpu}", *columns)
    for choice in plan.fewer:
        counts = (str(choice.devices), str(choice.accumulate))
        table.add_row(*counts, *_where(choice), _fits(choice), *_times(plan, choice))
    return table


def _here(plan: "Budget") -> "Table":
    """Time on this machine."""
    from seqssl.cli.tables import duration

    table = _table("On this machine", "", "TFLOP/s", "update", "time")
    for line in plan.here:
        speed = _number(line.speed.flops / 1e12)
        table.add_row(line.speed.name, speed, _number(line.update), duration(line.seconds))
    return table


def _notes(plan: "Budget") -> list[str]:
    """What the figures stand on."""
    from seqssl.planning.hardware import LOCAL_UTILIZATION, gpu_of, has_gpu

    assumed, gpu = plan.assumed, gpu_of(plan.gpu)
    shares = LOCAL_UTILIZATION["cuda" if has_gpu() else "cpu"]
    local = " and ".join(f"{share:.0%} ({dtype})" for dtype, share in shares.items())
    link = gpu.link / 1e9 if assumed.link is None else assumed.link
    notes = []
    if plan.heard is not None:
        heard = plan.heard
        much = f"{heard.update:.2g} times all" if heard.update > 1 else f"{heard.update:.2%}"
        notes.append(
            f"{plan.num_updates:,} updates go {_number(heard.epochs)} times through {heard.hours:,.6g} h; one"
            f" update reads {much} of them."
        )
        if heard.update > 1:
            notes.append("An update reads more than all of the data: take fewer micro-batches.")
    if plan.update_input > plan.recipe_input * (1 + 1e-9):
        notes.append(
            f"There are more devices than micro-batches: an update grows from {plan.recipe_input:,.0f} to"
            f" {plan.update_input:,.0f} {plan.cost.unit}."
        )
    if plan.why_whole:
        notes.append(f"Weights stay whole on each device (train.shards=1): {plan.why_whole}.")
    notes.append(
        f"Assumed, each a setting: utilization={assumed.utilization:g} of the vendor's"
        f" {gpu.flops / 1e12:,.0f} TFLOP/s; link={link:g} GB/s of a device within its machine of"
        f" devices_per_machine={assumed.devices_per_machine}; bandwidth={assumed.bandwidth:g} GB/s of a"
        f" machine to others; overlap={assumed.overlap:g} of the shorter of computing and network hidden."
        f" On this machine: {local} of a matrix product measured just now; measure=true times updates."
    )
    notes.append(
        "Shards: train.shards. Blocks twice: train.checkpoint_activations=true. Reading data, evaluation and"
        " checkpoints are not counted."
    )
    for line in plan.here:
        if line.speed.share is not None:
            notes.append(f"Measured here: utilization={line.speed.share:.2g}, for GPUs such as this one.")
    if plan.cost.is_real:
        notes.append("A part of this model looks at values: one row was really run, and counts for all.")
    if plan.task != "pretrain":
        notes.append(
            f"This is the cost of pre-training; what task={plan.task} does beside it is not counted."
        )
    return notes


def batch_tables(search: "Search") -> "RenderableType":
    """What larger micro-batches are like, and which one to take."""
    from rich.console import Group

    columns = ("rows", f"input, {search.unit}", "update, s", "input a second", "peak GiB", "planned", "ratio")
    table = _table(f"Micro-batches of {search.title} ({search.gpu or 'CPU, one process'})", *columns)
    for trial in search.trials:
        peak, ratio = "", ""
        if trial.peak:
            peak, ratio = f"{trial.peak / 2**30:,.2f}", f"{trial.planned / trial.peak:.2f}"
        seconds = "no room" if trial.seconds is None else _number(trial.seconds)
        speed = _number(trial.speed) if trial.speed else ""
        planned = f"{trial.planned / 2**30:,.2f}"
        table.add_row(str(trial.rows), f"{trial.input:,.6g}", seconds, speed, peak, planned, ratio)
    grown = search.batch * search.accumulate * search.devices
    stays = "stays" if abs(grown - search.update) < 1e-6 * grown else f"becomes {grown:,.6g}, from"
    return Group(
        table,
        f"It ended because {search.ended}. Each is a whole update of one micro-batch."
        f"{'' if search.gpu else ' Peak: of the process; planned: of the tensors in it.'}",
        f"Suggested on {search.devices}: {search.key}={search.batch:.10g}"
        f" train.accumulate={search.accumulate} (an update {stays} {search.update:,.6g} {search.unit}).",
    )
