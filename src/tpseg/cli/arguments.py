"""From functions to a command line: jsonargparse with our wording, presets as defaults, and the nearest name on a typo."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn, Optional

import jsonargparse
from docstring_parser import parse as parse_docstring

from tpseg.core.config import build_config, merge, read_source
from tpseg.core.errors import UsageError, nearest

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)

PROGRAM = "tpseg"
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
JSON_HELP = "Print one JSON object on stdout and nothing else; what is for people goes to stderr."
LOG_HELP = "Add what is said to this file too, with the time."


@dataclass(frozen=True)
class Outcome:
    """How a verb ended."""

    summary: Mapping[str, Any]
    """What it found and wrote, for --json: anything that JSON holds, and paths, dataclasses and numpy's numbers."""
    code: int = 0
    """The exit code."""


@dataclass(frozen=True)
class Verb:
    """One command: its function's docstring is the help, its parameters are the options, beside those that every verb has."""

    name: str
    function: Callable[..., Outcome]
    positional: tuple[str, ...] = ()
    presets: bool = False
    """Whether --config names presets that set the other options' defaults."""

    @property
    def summary(self) -> str:
        return parse_docstring(inspect.getdoc(self.function) or "").short_description or ""


@dataclass(frozen=True)
class Output:
    """Where any verb's words go."""

    json: bool
    """Whether stdout gets one JSON object and nothing else."""
    log: Path | None
    """A file that keeps what is said."""

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Output:
        """Looked up before anything is parsed, for a wrong option is told the same way."""
        return cls("--json" in arguments, Path(log[-1]) if (log := option_values(arguments, "--log")) else None)


class HelpPage(jsonargparse.DefaultHelpFormatter):
    """Without Python's types: the choices, the default and the text say what an option takes."""

    def _get_type_str(self, action: argparse.Action) -> None:
        return None


class Parser(jsonargparse.ArgumentParser):
    """jsonargparse's parser, with errors as UsageError and a suggestion for unknown options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UsageError(f"{' '.join(message.split())}{self._suggestion(message)} (see '{self.prog} --help')") from ex

    def _suggestion(self, message: str) -> str:
        options = [option for action in self._actions for option in action.option_strings if option.startswith("--") and option != "--help"]
        for word in re.findall(r"--[\w.\-]+", message):
            if word not in options:
                return nearest(word, options)
        return ""


def split_verb(verbs: Sequence[Verb], arguments: Sequence[str]) -> tuple[Verb | None, list[str]]:
    """The verb that a command line begins with, one or two words, and the rest; None to ask for help."""
    names = {verb.name: verb for verb in verbs}
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if len(arguments) >= words and name in names:
            return names[name], list(arguments[words:])
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        raise UsageError(f"the verb comes first, found '{arguments[0]}' (verbs: {', '.join(names)})")
    given = [word for word in arguments[:2] if not word.startswith("-")]
    groups = {name.split()[0] for name in names if " " in name}
    if not given or (given[0] in groups and len(given) == 1):
        return None, list(arguments)
    wrong = " ".join(given) if given[0] in groups else given[0]
    close = nearest(" ".join(given), [name for name in names if " " in name]) or nearest(given[0], names)
    raise UsageError(f"unknown verb '{wrong}'{close} (verbs: {', '.join(names)})")


def overview(verbs: Sequence[Verb], arguments: Sequence[str] = ()) -> str:
    """The help page without a verb; of the verbs of one group alone, if `arguments` name it: `data`."""
    group = next((f"{word} " for word in arguments if not word.startswith("-")), "")
    shown = [verb for verb in verbs if verb.name.startswith(group)]
    width = max(len(verb.name) for verb in shown)
    rows = "\n".join(f"  {verb.name:<{width}}  {verb.summary}" for verb in shown)
    hint = f"'{PROGRAM} {group}VERB --help' tells a verb's options."
    if group:
        return f"usage: {PROGRAM} {group}VERB [options]\n\n{rows}\n\n{hint}\n"
    return f"""usage: {PROGRAM} VERB [options]

One model for many medical lesion segmentation tasks (TP-Seg).

{rows}

{hint} A first run, start to end:

  {PROGRAM} phantoms phantoms
  {PROGRAM} train --config small,demo --data phantoms/tasks.yaml --out runs/first
  {PROGRAM} evaluate runs/first --data phantoms/tasks.yaml
  {PROGRAM} report runs/first
"""


def build_parser(verb: Verb, arguments: Sequence[str]) -> Parser:
    """The parser of one verb; presets named in `arguments` become its defaults, so --help shows them.

    Switches need no value, names have dashes, and a parameter that is a dataclass becomes a group of options with its
    name in front: `--training.epochs`.
    """
    helps = {entry.arg_name: entry.description for entry in parse_docstring(inspect.getdoc(verb.function) or "").params}
    description = _description(verb.function)
    parser = Parser(prog=f"{PROGRAM} {verb.name}", description=description, formatter_class=HelpPage, allow_abbrev=False)
    usage = [parser.prog]
    for name, parameter in _parameters(verb.function).items():
        kind, required = _plain_kind(parameter.annotation), parameter.default is inspect.Parameter.empty
        option = f"--{name.rstrip('_').replace('_', '-')}"  # from_ stands for --from, a word of Python's own
        if is_dataclass(kind):
            parser.add_class_arguments(kind, name, help=helps[name])
        elif name in verb.positional:
            many = kind == list[str]
            parser.add_argument(name, type=str if many else kind, nargs="+" if many else None if required else "?", help=helps[name])
            usage.append(f"{name.upper()}{' ...' if many else ''}" if required else f"[{name.upper()}]")
        elif kind is bool:
            parser.add_argument(option, action="store_true", help=helps[name])
        elif required:
            parser.add_argument(option, type=kind, required=True, help=helps[name])
            usage.append(f"{option} {name.upper()}")
        else:
            parser.add_argument(option, type=kind, default=_plain_value(parameter.default), help=helps[name])
    parser.add_argument("--json", action="store_true", help=JSON_HELP)
    parser.add_argument("--log", type=Optional[str], help=LOG_HELP)  # noqa: UP045 - jsonargparse shows it as is
    parser.usage = " ".join([*usage, "[options]"])
    if verb.presets:
        presets = merge(*[read_source(name) for name in preset_option(arguments)])
        build_config(presets, source="--config")  # a wrong type is an error of the file, not of an option
        parser.set_defaults(flatten(presets))
    return parser


def read_arguments(verb: Verb, arguments: Sequence[str]) -> dict[str, Any]:
    """The values that a command line gives to the verb's function; raises UsageError."""
    for word, following in pairwise(arguments):
        if word == "--json" and following.endswith(".json"):
            raise UsageError(f"--json takes no file, it prints on stdout: --json > {following}")
    parser = build_parser(verb, arguments)
    values = parser.instantiate(parser.parse_args(bracket_lists(parser, arguments)))
    return {name: _as_path(values[name.rstrip("_")], parameter.annotation) for name, parameter in _parameters(verb.function).items()}


def bracket_lists(parser: Parser, arguments: Sequence[str]) -> list[str]:
    """Let people write lists as 64,32,32 and '#ff0000,liver': jsonargparse wants the YAML of a list, ["#ff0000",liver]."""
    lists = {
        option
        for action in parser._actions
        for option in action.option_strings
        if str(action.metavar or "").startswith("[") or f"{option}+" in action.option_strings
    }
    given = list(arguments)
    for index, word in enumerate(given):
        option, equals, value = word.partition("=")
        if option in lists and equals and not value.startswith("["):
            given[index] = f"{option}={_yaml_list(value)}"
        elif option in lists and index + 1 < len(given) and not given[index + 1].startswith("["):
            given[index + 1] = _yaml_list(given[index + 1])
    return given


def _yaml_list(words: str) -> str:
    """Comma-separated words as a list of YAML, quoted unless all are numbers: YAML sees a comment in #ff0000 and a truth in no."""
    found = words.split(",")
    if all(NUMBER.fullmatch(word) for word in found):
        return f"[{words}]"
    return f"[{','.join(json.dumps(word, ensure_ascii=False) for word in found)}]"


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function, eval_str=True).parameters


def _plain_kind(kind: Any) -> Any:
    """Paths are read as text: jsonargparse would show their class in the help."""
    return str if kind is Path else Optional[str] if kind == Path | None else kind  # noqa: UP045 - jsonargparse shows it as is


def _plain_value(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _as_path(value: Any, kind: Any) -> Any:
    return Path(value) if kind in (Path, Path | None) and value is not None else value


def preset_option(arguments: Sequence[str]) -> list[str]:
    """The names given to --config, comma-separated, once or several times."""
    return [name for value in option_values(arguments, "--config") for name in value.split(",") if name]


def option_values(arguments: Sequence[str], option: str) -> list[str]:
    """What follows an option, as `--option VALUE` or `--option=VALUE`, each time that it is given."""
    found = []
    for index, word in enumerate(arguments):
        if word == option and index + 1 < len(arguments):
            found.append(arguments[index + 1])
        elif word.startswith(f"{option}="):
            found.append(word.removeprefix(f"{option}="))
    return found


def flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _description(function: Callable[..., Any]) -> str:
    text = parse_docstring(inspect.getdoc(function) or "")
    return "\n\n".join(part for part in (text.short_description, text.long_description) if part)
