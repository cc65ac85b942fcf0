"""The command line: one function per verb, no logic. `tpseg --help` lists the verbs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tpseg
from tpseg.arguments import Verb, overview, read_arguments, split_verb
from tpseg.cli.data import data_check, data_split, phantoms
from tpseg.cli.learn import compare, evaluate, info, report, study, train
from tpseg.cli.use import export, predict
from tpseg.cli.words import error_console, out_console
from tpseg.errors import TPSegError

VERBS = (
    Verb("phantoms", phantoms, positional=("out",)),
    Verb("data check", data_check, positional=("data",)),
    Verb("data split", data_split, positional=("folder",)),
    Verb("train", train, presets=True),
    Verb("evaluate", evaluate, positional=("model",)),
    Verb("compare", compare, positional=("first", "second")),
    Verb("predict", predict, positional=("model", "inputs")),
    Verb("export", export, positional=("model",)),
    Verb("report", report, positional=("run",)),
    Verb("study", study, positional=("name",)),
    Verb("info", info, positional=("model",)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 bad data, 2 bad usage."""
    try:
        if list(sys.argv[1:] if arguments is None else arguments) == ["--version"]:
            out_console.print(f"tpseg {tpseg.__version__}")
            return 0
        verb, rest = split_verb(VERBS, sys.argv[1:] if arguments is None else arguments)
        if verb is None:
            out_console.print(overview(VERBS, rest))
            return 0
        return verb.function(**read_arguments(verb, rest)) or 0
    except TPSegError as error:
        error_console.print(f"tpseg: {error}", style="red")
        return error.exit_code
    except OSError as error:  # a full disk, a folder without permission
        error_console.print(f"tpseg: {error}", style="red")
        return 1
    except KeyboardInterrupt:
        error_console.print("tpseg: interrupted; a training run goes on with --resume", style="red")
        return 130
