"""The command line: one function per verb, no logic. `tpseg --help` lists the verbs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import tpseg
from tpseg.arguments import Verb, overview, read_arguments, split_verb
from tpseg.cli.data import data_check, data_list, data_prepare, data_split, data_stats, data_view, phantoms
from tpseg.cli.grow import add_task, merge, remove_task, rename_task
from tpseg.cli.learn import compare, evaluate, info, report, reproduce, study, train
from tpseg.cli.trust import calibrate
from tpseg.cli.use import export, predict
from tpseg.cli.words import error_console, guard_log, out_console
from tpseg.errors import TPSegError
from tpseg.files import why_not_written

VERBS = (
    Verb("phantoms", phantoms, positional=("out",)),
    Verb("data list", data_list),
    Verb("data prepare", data_prepare, positional=("name",)),
    Verb("data check", data_check, positional=("data",)),
    Verb("data stats", data_stats, positional=("data",)),
    Verb("data view", data_view, positional=("data",)),
    Verb("data split", data_split, positional=("folder",)),
    Verb("train", train, presets=True),
    Verb("reproduce", reproduce, positional=("run",)),
    Verb("evaluate", evaluate, positional=("model",)),
    Verb("compare", compare, positional=("first", "second")),
    Verb("calibrate", calibrate, positional=("model",)),
    Verb("predict", predict, positional=("model", "inputs")),
    Verb("add-task", add_task, positional=("model",)),
    Verb("remove-task", remove_task, positional=("model", "names")),
    Verb("rename-task", rename_task, positional=("model", "old", "new")),
    Verb("merge", merge, positional=("first", "second")),
    Verb("export", export, positional=("model",)),
    Verb("report", report, positional=("run",)),
    Verb("study", study, positional=("name",)),
    Verb("info", info, positional=("model",)),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 bad data, 2 bad usage."""
    guard_log()
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
        error_console.sentence(f"tpseg: {error}", style="red")
        return error.exit_code
    except OSError as error:  # a full disk, a folder without permission
        error_console.print(f"tpseg: {why_not_written(error)}", style="red")
        return 1
    except KeyboardInterrupt:
        error_console.print("tpseg: interrupted; a training run goes on with --resume, data prepare with the same command", style="red")
        return 130
