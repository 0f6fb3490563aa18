"""The command line: `seqssl COMMAND key=value ...`.

`seqssl.cli.surface` lists the commands. What one does is in a module of its own, which is imported once the
arguments are known to be good, so that help and mistakes cost no heavy import.
"""

import difflib
import errno
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

from seqssl.cli.surface import COMMANDS, Command, Key, Typed
from seqssl.config.schema import RunConfig
from seqssl.config.values import did_you_mean
from seqssl.errors import FirstRankFailed, HealthHalt, Interrupted, RankLost, UserError

DONE, BUG, USER_ERROR, HALTED, INTERRUPTED = 0, 1, 2, 3, 130


@dataclass(frozen=True)
class Arguments:
    """The arguments that were typed, checked."""

    values: dict[str, Any]
    overrides: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


PATH_ERRORS = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError, FileNotFoundError)

PATH_ERRNOS = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)  # those that have no exception of their own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    code = _reported(arguments)
    ranks = sys.modules.get("seqssl.training.ranks")  # imported where there may be others of this run
    if ranks is not None:
        ranks.end_with_group(code)
    return code


def _reported(arguments: Sequence[str] | None) -> int:
    """Run one command and say what is wrong; returns the exit code."""
    # Threads that spin while they wait slow each other down several times where another process is busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Large tensors of main memory come in pages of 2 MiB where Linux has them: fewer to clear and to find.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except FirstRankFailed:
        time.sleep(2)  # a launcher ends all ranks when one ends; the first must report its error before
        return USER_ERROR
    except UserError as error:
        print(f"seqssl: {error}", file=sys.stderr)
        return USER_ERROR
    except HealthHalt as error:
        print(f"seqssl: halted: {error}", file=sys.stderr)
        return HALTED
    except RankLost as error:  # the other one, or who ended it, says why
        print(f"seqssl: {error}", file=sys.stderr)
        return BUG
    except (KeyboardInterrupt, Interrupted) as error:
        print(f"seqssl: interrupted. {error}".rstrip(), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has seen enough, as in `seqssl config ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if isinstance(error, PATH_ERRORS) or (isinstance(error, OSError) and error.errno in PATH_ERRNOS):
            advice = "Check the path, and who may read and write there."
            print(f"seqssl: {error.filename}: {error.strerror}. {advice}", file=sys.stderr)
            return USER_ERROR
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            print("seqssl: the disk is full: free some space and try again.", file=sys.stderr)
            return USER_ERROR
        traceback.print_exc()
        print("seqssl: this is a bug in seqssl or in a component of yours; see above.", file=sys.stderr)
        return BUG


def _run(arguments: list[str]) -> int:
    """Run the command that the arguments name; returns an exit code, or raises what `main` reports."""
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(overview())
        return DONE
    if arguments[0] == "--version":
        from seqssl import __version__

        print(__version__)
        return DONE
    name, *rest = arguments
    commands = {command.name: command for command in COMMANDS}
    if name not in commands:
        raise UserError(f"there is no command '{name}'{did_you_mean(name, commands)}")
    if {"--help", "-h"} & set(rest):
        print(usage(commands[name]))
        return DONE
    parsed = parse(commands[name], rest)
    functions = import_module(f"seqssl.cli.{commands[name].module}")
    return int(getattr(functions, name)(parsed) or DONE)


def parse(command: Command, arguments: Sequence[str]) -> Arguments:
    """Check the arguments of a command; every mistake is a `UserError`."""
    flags = [key.name for key in command.flags]
    keys = {key.name: key for key in (*command.words, *command.keys)}
    own = {name: key for name, key in keys.items() if not key.override}
    taken = {**{name: key.default for name, key in own.items()}, **dict.fromkeys(flags, False)}
    words, overrides = list(command.words), []
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals and argument in flags:
            taken[argument] = True
        elif not equals and words and not argument.startswith("-"):
            taken[words.pop(0).name] = argument
        elif not equals:
            hint = did_you_mean(argument, flags) if argument.startswith("-") else "; expected key=value"
            raise UserError(f"{command.name}: '{argument}' is not understood{hint}")
        elif name in own:
            taken[name] = _converted(own[name], text)
        elif _is_override(command, name, [*keys]):
            overrides.append(argument)
        else:
            raise UserError(f"{command.name}: unknown key '{name}'{did_you_mean(name, keys)}")
    missing = [name for name, key in own.items() if key.required and not taken[name]]
    if missing:
        raise UserError(f"{command.name}: {' and '.join(missing)} missing.\n\n{usage(command)}")
    return Arguments(taken, overrides)


def overview() -> str:
    """The help of `seqssl` itself."""
    lines = [f"  {command.name:9} {command.help}" for command in COMMANDS]
    return "\n".join(
        [
            "seqssl pre-trains encoders on unlabelled sequences of any kind.",
            "",
            "usage: seqssl COMMAND key=value ...    seqssl COMMAND --help",
            "",
            *lines,
            "",
            "exit codes: 0 done, 1 bug, 2 wrong input, 3 halted by a health policy, 130 interrupted",
        ]
    )


def usage(command: Command) -> str:
    """The help of one command."""
    words = [key.name.upper() if key.required else f"[{key.name.upper()}]" for key in command.words]
    given = [f"{key.name}=..." if key.required else f"[{key.name}=...]" for key in command.keys]
    flags = [f"[{key.name}]" for key in command.flags]
    further: dict[str, list[str]] = {
        "": [],
        "recipe": ["[section.key=value ...]"],
        "modality": ["[modality.key=value ...]"],
    }
    parts = ["usage: seqssl", command.name, *words, *given, *flags, *further[command.overrides]]
    lines, shown = [], (*command.words, *command.keys, *command.flags)
    width = max([12, *(len(key.name) for key in shown)])
    for key in shown:
        default = "" if key.default is None or key.convert is bool else f" (default: {key.default})"
        lines.append(f"  {key.name:{width}} {key.help}{default}")
    if command.overrides == "recipe":
        lines.append("  Any setting of the recipe may follow, such as optim.lr=1e-3; see `seqssl config`.")
    return "\n".join([" ".join(parts), "", command.help, "", *lines, "", f"example: {_example(command)}"])


def _example(command: Command) -> str:
    """The example of a command, with names that exist here."""
    if "{" not in command.example:
        return command.example
    from seqssl.config.components import names
    from seqssl.config.files import list_recipes

    recipes = [name for name in list_recipes() if not name.startswith("base/")] or ["RECIPE"]
    adapters = sorted(names("modality")) or ["my_pkg.my_adapter:MyAdapter"]
    return command.example.format(recipe=recipes[0], modality=adapters[0])


def _is_override(command: Command, name: str, keys: list[str]) -> bool:
    """Whether a key is meant for the recipe or the adapter, and is no misspelled key of the command."""
    if command.overrides == "modality":
        return name.startswith("modality.")
    settings = {setting.name for setting in fields(RunConfig)}
    known = name.partition(".")[0] in settings or name in keys
    misspelt = not known and difflib.get_close_matches(name, keys)
    return command.overrides == "recipe" and not misspelt


def _converted(key: Key, text: str) -> Typed:
    """The text of a key as its type; UserError where it cannot be."""
    try:
        value: Typed = {"true": True, "false": False}[text] if key.convert is bool else key.convert(text)
        return value
    except (ValueError, KeyError) as error:
        kind = {int: "an integer", float: "a number", bool: "true or false"}[key.convert]
        raise UserError(f"{key.name} = {text}: expected {kind}") from error
