"""The whole surface of the command line: every command with its keys."""

from dataclasses import dataclass

from seqssl.planning.assumptions import Assumptions

Typed = str | int | float | bool | None  # the value of a key


@dataclass(frozen=True)
class Key:
    """One argument of a command."""

    name: str
    help: str
    default: Typed = None
    required: bool = False
    convert: type = str
    override: bool = False  # a setting of the recipe, listed because it is the one most asked for


@dataclass(frozen=True)
class Command:
    """One command; its function has the same name."""

    name: str
    help: str
    example: str  # {recipe} and {modality} stand for one that is installed
    words: tuple[Key, ...] = ()  # given by position
    keys: tuple[Key, ...] = ()
    flags: tuple[Key, ...] = ()
    overrides: str = ""  # which further keys it takes: "" none, "recipe" all settings, "modality" modality.*
    module: str = "commands"  # of seqssl.cli, where its function is


TASKS = ("classify", "regress", "tag", "forecast", "impute", "ctc", "transducer")
RECIPE = Key("recipe", "a recipe's name, its YAML file, or a run's folder", required=True)
RUN = Key("run", "a run's folder", required=True)
MODALITY = Key("modality", "an adapter's name, or pkg.mod:Class", required=True)
TAP = Key("tap", "the stage to read: a tap of the encoder, or features; else the highest tap", "")
WEIGHTS = Key("weights", "last, best or random", "last")
STREAM = Key("stream", "which kind of data, for a joint run", "")
SIZE = Key("size", "a size of the recipe, or auto", "auto", override=True)
POOL = "of a row: mean, statistics (mean and deviation), thirds (three means), last; none: every frame"
DATA = Key("data", "prepared folder, raw folder or Parquet file; else the demo corpus", override=True)
ASSUMED = (
    Key(
        "utilization",
        "share of the vendor's FLOP/s that a step reaches",
        Assumptions.utilization,
        convert=float,
    ),
    Key(
        "devices_per_machine",
        "that `link` connects with one another",
        Assumptions.devices_per_machine,
        convert=int,
    ),
    Key("link", "GB/s of a device within its machine; else the vendor's figure", convert=float),
    Key("bandwidth", "GB/s of a machine to others, each way", Assumptions.bandwidth, convert=float),
    Key(
        "overlap",
        "share of network or computing, whichever is shorter, that is hidden",
        Assumptions.overlap,
        convert=float,
    ),
)

COMMANDS = (
    Command(
        "train",
        "pre-train; goes on where it stopped when `out` holds a run",
        "seqssl train recipe={recipe} size=tiny train.num_updates=200 out=runs/first",
        keys=(
            Key("recipe", f"{RECIPE.help}; else that of the run in `out`, else auto: one that fits `data`"),
            SIZE,
            DATA,
            Key(
                "out",
                "the run's folder",
                "runs/RECIPE-SIZE, with the data's name if it is yours",
                override=True,
            ),
        ),
        overrides="recipe",
    ),
    Command(
        "prepare",
        "raw files to Parquet shards with manifest and hashes; what is unusable goes to rejected.jsonl",
        "seqssl prepare modality={modality} source=my_files out=my_corpus",
        keys=(
            MODALITY,
            Key("source", "a folder or file of raw data; also s3://, gs:// or abfs://", required=True),
            Key("out", "the folder to write; also s3://, gs:// or abfs://", required=True),
            Key("split_by", "what is held out as a whole: group or record", "group"),
            Key("valid_share", "share that is held out", 0.1, convert=float),
            Key("valid_groups", "groups to hold out instead, by name: a,b"),
            Key("seed", "of the split", 0, convert=int),
            Key("workers", "reading processes; as many as there are, if not given", convert=int),
            Key("executor", "who reads: process, dask:tcp://HOST:PORT, mpi, ray or ray:ADDRESS", "process"),
            Key("part", "a share of the work, as of a job array: 3/16; without it all are joined"),
        ),
        overrides="modality",
        module="preparing",
    ),
    Command(
        "data",
        "list the public demo corpora, or get one into the cache, verified by checksum",
        "seqssl data list",
        words=(Key("action", "list or get", "list"), Key("name", "the corpus to get")),
    ),
    Command(
        "embed",
        "frozen features of raw or prepared data",
        "seqssl embed run=runs/first source=my_files out=features.parquet",
        keys=(
            RUN,
            Key("source", "a folder or file of data", required=True),
            Key("out", "the Parquet file to write", required=True),
            Key("pool", POOL, "mean"),
            TAP,
            WEIGHTS,
            STREAM,
        ),
        overrides="modality",
    ),
    Command(
        "evening",
        "pre-train on a folder for some hours, and say whether it was worth it; goes on where it stopped",
        "seqssl evening data=my_files hours=5 out=runs/evening",
        keys=(
            Key("data", "a folder or file, raw or prepared", required=True),
            Key("hours", "that it may take, all in all", 5.0, convert=float),
            Key("labels", "patterns of the labels to tell apart; else all that rows have", ""),
            Key("recipe", "a recipe, or auto: one that fits the data", "auto"),
            Key("out", "the folder to write", "evening"),
        ),
        overrides="recipe",
        module="supervised",
    ),
    Command(
        "export",
        "a run's encoder for other libraries, with a certificate of how far its outputs are from ours",
        "seqssl export run=runs/first to=onnx out=encoder",
        keys=(
            RUN,
            Key("to", "hf (transformers), onnx or safetensors", required=True),
            Key("out", "the new folder", required=True),
            Key("weights", "last or best", "last"),
            STREAM,
        ),
    ),
    Command(
        "finetune",
        "tune a run's encoder for a task with labels; goes on where it stopped",
        "seqssl finetune run=runs/first task=classify task.labels='digits/*' out=runs/digits",
        keys=(
            RUN,
            Key("task", f"{', '.join(TASKS)}, or pkg.mod:Class", required=True),
            Key("data", "labelled data, or a demo corpus by name; else what the run was trained on"),
            Key("init", "pretrained: the run's weights; scratch: drawn anew", "pretrained"),
            Key("out", "the folder of the tuned run; else RUN-TASK-INIT"),
            STREAM,
        ),
        overrides="recipe",
        module="supervised",
    ),
    Command(
        "predict",
        "what a tuned run says of data: labels and scores, segments, forecasts or text",
        "seqssl predict run=runs/digits source=my_files out=said.csv",
        keys=(
            Key("run", "the folder of a tuned run", required=True),
            Key("source", "a folder or file of data, or a demo corpus by name", required=True),
            Key("out", "the file to write: .csv, .jsonl or .parquet", required=True),
            Key("weights", "last or best", "last"),
        ),
        overrides="modality",
        module="supervised",
    ),
    Command(
        "evaluate",
        "is the pre-trained encoder worth it: beside scratch, random weights and a classical method",
        "seqssl evaluate run=runs/first task=classify task.labels='digits/*' fractions=[0.1,1]",
        keys=(
            RUN,
            Key("task", f"{', '.join(TASKS)}", required=True),
            Key("data", "labelled data, or a demo corpus by name; else what the run was trained on"),
            Key("fractions", "shares of the labels to learn from", "[0.01,0.1,1]"),
            Key("seeds", "how often everything is repeated", 3, convert=int),
            Key(
                "folds",
                "who is tested: rotate (other groups for each seed), leave_one_out, split, or a number",
                "rotate",
            ),
            Key("rows", "what is compared", "classical,random,scratch,frozen,pretrained"),
            Key("metric", "what decides; else the task's first metric", ""),
            Key("lrs", "learning rates to choose from, for each row", "[0.0001,0.001]"),
            Key("jobs", "cells at once; 0: one for each core, or one on a GPU", 0, convert=int),
            Key("out", "the folder to write; else RUN/evaluation-TASK"),
            STREAM,
        ),
        overrides="recipe",
        module="supervised",
    ),
    Command(
        "compare",
        "several recipes side by side: the same data and budget, judged alike; goes on where it stopped",
        "seqssl compare recipes={recipe},my_recipe.yaml budget=minutes:5 task=classify size=tiny",
        keys=(
            Key("recipes", "two names or more: a,b", required=True),
            Key("budget", "of pre-training: updates:N or minutes:M, all stages together", "updates:300"),
            Key("task", "what the ruler judges by, with its settings: 'classify task.labels=...'", ""),
            Key("frames", "labelled data whose frames are told apart, layer by layer", ""),
            Key("seeds", "of each recipe", 2, convert=int),
            Key("jobs", "runs at once; 0: one for each core", 0, convert=int),
            Key("out", "the folder to write", "comparison"),
        ),
        overrides="recipe",
        module="supervised",
    ),
    Command(
        "study",
        "a claim of the field put to the test: collapse, ablation, transfer, bases; goes on where it stopped",
        "seqssl study collapse out=studies/collapse",
        words=(Key("name", "collapse, ablation, transfer or bases", required=True),),
        keys=(
            Key("out", "the folder to write; else studies/NAME"),
            Key("recipe", "ablation: the recipe to vary"),
            Key("task", "ablation: what it is judged by; else what the recipe says"),
            Key("recipes", "transfer, bases: which; else all that say what they are judged by"),
            Key("updates", "of pre-training, for each run; else what fits the study's time", convert=int),
            Key("seeds", "of each variant; else 3, for transfer and bases 2", convert=int),
            Key("jobs", "runs at once; 0: one for each core", 0, convert=int),
        ),
        module="supervised",
    ),
    Command(
        "probe",
        "linear probe of frozen features, beside random weights and other baselines",
        "seqssl probe run=runs/first labels='digits/*,letters/*'",
        keys=(
            RUN,
            Key("source", "labelled data, or a demo corpus by name; else what the run was trained on"),
            Key("unheard", "more of it, from groups that the run was not trained on"),
            Key("labels", "labels to tell apart: patterns, each a task of its own (forecast: channels)", "*"),
            Key("task", "labels, frames (one by one, at every layer), or forecast (of numbers)", "labels"),
            Key("max_rows", "embed at most so many rows; all if not given", convert=int),
            Key("horizon", "forecast: steps ahead", 24, convert=int),
            Key("lookback", "forecast: steps that are given", 168, convert=int),
            Key("season", "forecast: steps after which the seasonal-naive baseline repeats", 24, convert=int),
            Key("pool", "labels: as for embed", "mean"),
            TAP,
            WEIGHTS,
            STREAM,
        ),
        overrides="modality",
        module="probing",
    ),
    Command(
        "info",
        "a run or recipe: input contract, sizes, what is trained",
        "seqssl info {recipe}",
        words=(Key("subject", "a run's folder or a recipe", required=True),),
        overrides="recipe",
    ),
    Command(
        "plan",
        "parameters, memory, FLOPs and time of a run, without building the weights",
        "seqssl plan recipe={recipe} size=xl devices=64 device=h100",
        keys=(
            RECIPE,
            SIZE,
            Key("devices", "number of devices to plan for", 1, convert=int),
            Key("device", "a GPU of the table in the docs"),
            Key("hours", "of data, to say how often a run goes through them", convert=float),
            *ASSUMED,
            Key("measure", "true: time the first updates of a real run here", False, convert=bool),
            Key("find_batch", "true: run larger and larger micro-batches here", False, convert=bool),
        ),
        overrides="recipe",
        module="planning",
    ),
    Command(
        "bench",
        "how fast a recipe trains here, beside transformers and the machine's own speed",
        "seqssl bench recipe={recipe} size=tiny",
        keys=(
            Key("recipe", "a recipe's name, or its YAML file; else one that transformers has, too"),
            SIZE,
            Key("data", "raw or prepared; the loader is timed where it is given", override=True),
            Key("rows", "of a step's micro-batch, from full length down to half of it", 2, convert=int),
            Key("length", "of the longest row, in seconds or input steps; else the recipe's", convert=float),
            Key("repeats", "steps that are timed, after two that are not", 5, convert=int),
            Key("precisions", "float32, bfloat16, or float32,bfloat16; else what the device is made for"),
            Key("out", "a folder for bench.md and bench.json"),
        ),
        overrides="recipe",
        module="supervised",
    ),
    Command(
        "doctor",
        "read a run's metrics: collapse, divergence, dead codes; says which key to change",
        "seqssl doctor runs/first",
        words=(RUN,),
    ),
    Command(
        "report",
        "several runs on one page: settings that differ, held-out figures, evaluations over one another",
        "seqssl report runs/first runs/second out=comparison.html",
        words=(
            Key("run", "a run's folder", required=True),
            *(Key(f"run{number}", "another run's folder") for number in range(2, 9)),
        ),
        keys=(Key("out", "the page to write", "comparison.html"),),
    ),
    Command(
        "check",
        "the contract checks on an adapter, yours or a shipped one",
        "seqssl check modality=my_pkg.my_adapter:MyAdapter source=my_files",
        keys=(MODALITY, Key("source", "a folder or file of raw data", required=True)),
        overrides="modality",
    ),
    Command(
        "config",
        "the resolved recipe",
        "seqssl config recipe={recipe} size=tiny --origin",
        keys=(RECIPE, SIZE, DATA),
        flags=(Key("--origin", "say beside each value which file it came from"),),
        overrides="recipe",
    ),
    Command("recipes", "what there is, with paper, sizes and expected result", "seqssl recipes"),
)
