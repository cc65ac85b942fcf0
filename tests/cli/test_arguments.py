"""The command line is read as a person writes it."""

from __future__ import annotations

import pytest

import tpseg
from tpseg.cli import VERBS, main
from tpseg.cli.arguments import build_parser, preset_option, read_arguments, split_verb
from tpseg.core.errors import UsageError

TRAIN = next(verb for verb in VERBS if verb.name == "train")
PREPARE = next(verb for verb in VERBS if verb.name == "data prepare")
SPLIT = next(verb for verb in VERBS if verb.name == "data split")
NEEDED = ["--data", "tasks.yaml", "--out", "run"]


@pytest.mark.parametrize(
    "words", [["--config", "small,baseline"], ["--config", "small", "--config", "baseline"], ["--config=small,baseline"]]
)
def test_presets_are_laid_over_each_other_however_they_are_named(words):
    values = read_arguments(TRAIN, [*NEEDED, *words])
    assert preset_option(words) == ["small", "baseline"]
    assert (values["model"].trunk, values["model"].pgtds) == ("tiny", ())


def test_a_single_key_wins_over_the_presets():
    values = read_arguments(TRAIN, [*NEEDED, "--config", "small", "--model.image_size", "160"])
    assert values["model"].image_size == 160
    assert values["training"].batch_size == 16


@pytest.mark.parametrize("written", ["64,32,32", "[64,32,32]"])
def test_lists_are_written_with_or_without_brackets(written):
    assert read_arguments(TRAIN, [*NEEDED, "--model.decoder_widths", written])["model"].decoder_widths == (64, 32, 32)
    assert read_arguments(TRAIN, [*NEEDED, f"--model.decoder_widths={written}"])["model"].decoder_widths == (64, 32, 32)


@pytest.mark.parametrize("labels", [["#ff0000"], ["#ff0000", "no"], ["liver tumour", "1"], ["e", "a: b", "null"], ["腫瘍"]])
def test_words_in_lists_are_words_whatever_yaml_sees_in_them(labels):
    given = ["folder", "--source", "in", "--out", "out", "--labels", ",".join(labels)]
    assert read_arguments(PREPARE, given)["labels"] == labels
    assert read_arguments(PREPARE, [*given[:-2], f"--labels={','.join(labels)}"])["labels"] == labels


def test_fractions_are_written_with_commas():
    assert tuple(read_arguments(SPLIT, ["folder", "--task", "skin", "--fractions", "0.6,0.2,0.2"])["fractions"]) == (0.6, 0.2, 0.2)


def test_a_wrong_type_in_a_preset_file_is_an_error_of_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {epochs: many}")
    with pytest.raises(UsageError, match=r"--config.*epochs"):
        build_parser(TRAIN, ["--config", str(path)])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["dta", "check"], "did you mean 'data check'"),
        (["data", "chek"], "did you mean 'data check'"),
        (["trian"], "did you mean 'train'"),
        (["--foo"], "the verb comes first, found '--foo'"),
    ],
)
def test_a_misspelt_verb_is_told_the_nearest(words, expected):
    with pytest.raises(UsageError, match=expected):
        split_verb(VERBS, words)


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"tpseg {tpseg.__version__}"
