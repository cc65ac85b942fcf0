"""The command line: one function per verb, no logic. `tpseg --help` lists the verbs."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime

import tpseg
from tpseg.cli.arguments import Outcome, Output, Verb, overview, read_arguments, split_verb
from tpseg.cli.calibrate import calibrate
from tpseg.cli.console import error_console, guard_log, out_console, plain, stdout_to_stderr
from tpseg.cli.data import data_check, data_list, data_prepare, data_split, data_stats, data_view, phantoms
from tpseg.cli.grow import add_task, merge, remove_task, rename_task
from tpseg.cli.learn import compare, evaluate, info, report, reproduce, study, train
from tpseg.cli.use import export, predict
from tpseg.core.errors import TPSegError
from tpseg.core.files import why_not_written
from tpseg.core.log_file import listening, log_only, logging_to

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
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        out_console.print(f"tpseg {tpseg.__version__}")
        return 0
    output = Output.of(words)
    if output.json or output.log:
        from tpseg.training.process_group import is_first

        output = output if is_first() else Output(json=False, log=None)  # of several processes one speaks
    with listening() as warned:
        verb, outcome = _run(words, output)
    if output.json and outcome.summary:
        summary = {"verb": verb, "exit_code": outcome.code, "warnings": warned.messages, **outcome.summary}
        sys.stdout.write(json.dumps(plain(summary), indent=2, allow_nan=False) + "\n")
    return outcome.code


def _run(words: Sequence[str], output: Output) -> tuple[str | None, Outcome]:
    """A verb's name and how it ended; what went wrong is said in a sentence."""
    name = None
    with ExitStack() as stack:
        try:
            stack.enter_context(logging_to(output.log))
            log_only(f"{datetime.now():%Y-%m-%d} {shlex.join(['tpseg', *words])}")
            verb, rest = split_verb(VERBS, words)
            if verb is None:
                out_console.print(overview(VERBS, rest))
                return None, Outcome({})
            name = verb.name
            values = read_arguments(verb, rest)
            if output.json:
                stack.enter_context(stdout_to_stderr())
            return name, verb.function(**values)
        except TPSegError as error:
            return name, _failed(error.exit_code, str(error))
        except OSError as error:  # a full disk, a folder without permission
            return name, _failed(1, why_not_written(error))
        except KeyboardInterrupt:
            return name, _failed(130, "interrupted; a training run goes on with --resume, data prepare with the same command")


def _failed(code: int, why: str) -> Outcome:
    error_console.sentence(f"tpseg: {why}", style="red")
    return Outcome({"error": why}, code)
