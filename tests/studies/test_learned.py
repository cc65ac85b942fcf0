"""What models learned: prototypes, splits and gradients, against numbers that were worked out by hand."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from miniature import config
from PIL import Image
from torch import Tensor, nn

from tpseg.core.errors import DataError, UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.data.dataset import LesionDataset
from tpseg.data.manifest import DataSet, read_dataset
from tpseg.models.base import Decoded, LesionModel
from tpseg.models.tpseg.network import TPSeg
from tpseg.studies.learned import (
    TaskGradient,
    conflict_summary,
    correlate,
    correlation_table,
    gate_table,
    gradient_conflict,
    mean_gradient,
    prototype_table,
    separation_against_scores,
    separation_table,
    shared_parameters,
    sharing_table,
    split_table,
    task_scores,
    two_halves,
)

BLACK, WHITE = -0.485 / 0.229, (1 - 0.485) / 0.229
"""The red channel after normalisation."""


def squares(folder: Path, tasks: dict[str, tuple[int, bool]], count: int = 4) -> DataSet:
    """Tasks of plain images: name -> (grey value, whether everything is lesion or nothing)."""
    for name, (grey, lesion) in tasks.items():
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.full((32, 32), 255 * lesion, np.uint8)).save(folder / name / "mask.png")
        lines = ["image,mask,split,group"]
        for number in range(count):
            Image.fromarray(np.full((32, 32, 3), grey, np.uint8)).save(folder / name / f"{number}.png")
            lines.append(f"{number}.png,mask.png,train,")
        (folder / name / "split.csv").write_text("\n".join([*lines, ""]))
    entries = {name: {"modality": "test", "data": f"{name}/split.csv"} for name in tasks}
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": entries}, sort_keys=False))
    return read_dataset(folder / "tasks.yaml")


class Line(LesionModel):
    """logit = slope · red + level + own[task]: with equal red everywhere its gradient is g · (red, 1, 1), g a number."""

    stride = 1

    def __init__(self, tasks: TaskSet) -> None:
        super().__init__(cast(Any, SimpleNamespace(image_size=32)), tasks)
        self.slope = nn.Parameter(torch.tensor(0.0))
        self.level = nn.Parameter(torch.tensor(0.0))
        self.own = nn.ParameterList([torch.tensor(0.0) for _ in tasks])

    def decode(self, image: Tensor, task: Tensor) -> tuple[Tensor, list[Decoded]]:
        own = torch.stack([self.own[one] for one in task.tolist()])
        logits = self.slope * image[:, :1] + self.level + own[:, None, None, None]
        return logits, [Decoded(logits)]


def cosines(table: pd.DataFrame, part: str = "all") -> dict[tuple[str, str], float]:
    return {(row.task, row.other): row.cosine for row in table[table["part"] == part].itertuples()}


def line_conflict(folder: Path, tasks: dict[str, tuple[int, bool]], **options: int) -> pd.DataFrame:
    data = squares(folder, tasks)
    return gradient_conflict(Line(data.tasks), data, **{"batches": 2, "batch_size": 2, **options})


def test_two_tasks_with_the_same_images_agree_and_with_opposite_masks_conflict(tmp_path: Path) -> None:
    found = cosines(line_conflict(tmp_path, {"one": (90, True), "same": (90, True), "opposite": (90, False)}))
    assert found["one", "same"] == pytest.approx(1, abs=1e-6)
    assert found["one", "opposite"] == pytest.approx(-1, abs=1e-6)
    assert found["one", "one"] == pytest.approx(1, abs=1e-6)  # halves of images that are all alike


def test_the_cosine_is_that_of_the_gradients_worked_out_by_hand(tmp_path: Path) -> None:
    """Gradients ∝ (BLACK, 1) and (WHITE, 1), with the same sign of g for the same mask, on parameters that both tasks use."""
    expected = (BLACK * WHITE + 1) / np.sqrt((BLACK**2 + 1) * (WHITE**2 + 1))
    assert expected < -0.6
    assert cosines(line_conflict(tmp_path / "a", {"dark": (0, True), "light": (255, True)}))["dark", "light"] == pytest.approx(expected)
    assert cosines(line_conflict(tmp_path / "b", {"dark": (0, True), "light": (255, False)}))["dark", "light"] == pytest.approx(-expected)


def test_each_module_is_a_part_of_its_own_and_a_tasks_own_parameters_are_in_none(tmp_path: Path) -> None:
    table = line_conflict(tmp_path, {"dark": (0, True), "light": (255, True)})
    assert list(dict.fromkeys(table["part"])) == ["all", "slope", "level"]
    assert cosines(table, "slope")["dark", "light"] == pytest.approx(-1)  # BLACK and WHITE differ in sign
    assert cosines(table, "level")["dark", "light"] == pytest.approx(1)


def test_gradients_are_of_the_mean_over_the_images_whatever_the_batches(tmp_path: Path) -> None:
    tasks = {"dark": (0, True), "light": (200, True)}
    data = squares(tmp_path, tasks)
    for task in tasks:  # images that differ within a task
        for number in range(4):
            Image.fromarray(np.full((32, 32, 3), 60 * number + 10, np.uint8)).save(tmp_path / task / f"{number}.png")
    at_once = gradient_conflict(Line(data.tasks), data, batches=2, batch_size=2)
    one_by_one = gradient_conflict(Line(data.tasks), data, batches=4, batch_size=1)
    pd.testing.assert_frame_equal(at_once, one_by_one, rtol=1e-5)
    assert at_once["cosine"].between(-1, 1).all()


def vectors(**values: list[float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_orthogonal_gradients_have_cosine_0_and_halves_are_compared_with_each_other() -> None:
    # a: halves (1, 0) and (1, 2) on p, so mean (1, 1); b: mean (-3, 3); q belongs to a alone
    a = TaskGradient.of(vectors(p=[1.0, 0.0], q=[5.0]), vectors(p=[1.0, 2.0], q=[5.0]))
    b = TaskGradient.of(vectors(p=[-3.0, 3.0]), vectors(p=[-3.0, 3.0]))
    assert a.mean["p"].tolist() == [1, 1]
    assert a.cosine(b, ["p"]) == 0
    assert a.agreement(["p"]) == pytest.approx(1 / 5**0.5)  # 1·1 + 0·2 over |(1, 0)| |(1, 2)|
    assert b.agreement(["p"]) == pytest.approx(1)
    # with q the vectors are (1, 1, 5) and (-3, 3, 0); halves (1, 0, 5) and (1, 2, 5)
    assert a.cosine(b, ["p", "q"]) == 0
    assert a.agreement(["p", "q"]) == pytest.approx(26 / np.sqrt(26 * 30))
    assert np.isnan(a.cosine(b, ["q"]))


def test_a_parameter_is_shared_if_two_tasks_give_it_a_gradient_that_is_not_zero() -> None:
    one = vectors(trunk=[1.0, 0.0], head_one=[1.0], dead=[0.0], zero_for_one=[0.0])
    two = vectors(trunk=[0.0, 1.0], head_two=[1.0], dead=[0.0], zero_for_one=[1.0])
    assert shared_parameters([one, two]) == ["trunk"]


def test_the_summary_counts_conflicting_pairs_and_sets_the_halves_apart() -> None:
    rows = [("A4", "all", "a", "a", 0.8), ("A4", "all", "a", "b", -0.2), ("A4", "all", "b", "b", 0.6), ("A4", "all", "a", "c", 0.4)]
    summary = conflict_summary(pd.DataFrame(rows, columns=["row", "part", "task", "other", "cosine"]))
    assert summary.to_dict("records") == [
        {"row": "A4", "part": "all", "pairs": 2, "conflicting": 0.5, "cosine": pytest.approx(0.1), "agreement": pytest.approx(0.7)}
    ]


@pytest.mark.usefixtures("miniature_trunk")
def test_in_tpseg_routes_gates_and_heads_of_a_task_are_its_own_and_all_parts_are_shared(discs: Path) -> None:
    data = read_dataset(discs)
    torch.manual_seed(0)
    model = TPSeg(config().model, data.tasks)
    for parameter in model.parameters():  # `up` of the adapters starts at zero and lets no gradient through
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    table = gradient_conflict(model, data, batches=2, batch_size=3)
    assert set(table["part"]) == {"all", "trunk", "adapters", "neck", "decoder"}
    assert len(table) == 5 * 3  # two tasks: a pair and two diagonals
    assert table["cosine"].between(-1, 1).all()
    images = LesionDataset(data.split("train"), data.tasks, 64)
    gradients = [mean_gradient(model, images, two_halves(images, name, 3, 3, seed=0)[0], 3) for name in data.tasks.names]
    left_out = {name for name, _ in model.named_parameters()} - set(shared_parameters(gradients))
    own = ("adapters.gate.", "adapters.blocks.*.tasks.", "decoder.*.head.outputs.")
    assert left_out
    assert all(any(fnmatch(name, f"{pattern}*") for pattern in own) for name in left_out)
    assert all(any(fnmatch(name, f"{pattern}*") for name in left_out) for pattern in own)


class Stateful(Line):
    """A model with everything that a training step would change: running means, random numbers, `.grad`."""

    def __init__(self, tasks: TaskSet) -> None:
        super().__init__(tasks)
        self.norm = nn.BatchNorm2d(3)
        self.norm.weight.requires_grad_(False)
        self.drop = nn.Dropout(0.5)

    def decode(self, image: Tensor, task: Tensor) -> tuple[Tensor, list[Decoded]]:
        return super().decode(self.drop(self.norm(image)), task)


def test_measuring_leaves_the_model_as_it_was_bit_for_bit(tmp_path: Path, discs: Path, miniature_trunk: None) -> None:
    data = read_dataset(discs)
    torch.manual_seed(1)
    for model in (TPSeg(config().model, data.tasks), Stateful(data.tasks)):
        model.eval()
        next(model.children()).train()  # modes are kept one by one
        before = {name: value.clone() for name, value in model.state_dict().items()}
        modes = [module.training for module in model.modules()]
        random = torch.get_rng_state()
        first = gradient_conflict(model, data, batches=2, batch_size=3)
        assert torch.equal(torch.get_rng_state(), random)
        assert [module.training for module in model.modules()] == modes
        assert all(parameter.grad is None for parameter in model.parameters())
        after = model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        torch.rand(3)
        pd.testing.assert_frame_equal(first, gradient_conflict(model, data, batches=2, batch_size=3))


def test_the_model_is_put_back_after_an_error_too(tmp_path: Path) -> None:
    data = squares(tmp_path, {"one": (10, True), "two": (90, True)})
    model = Stateful(data.tasks).eval()
    (tmp_path / "two" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png"):
        gradient_conflict(model, data, batches=2, batch_size=2)
    assert not model.norm.training
    assert int(cast(Tensor, model.norm.num_batches_tracked)) == 0


def test_halves_need_two_images_and_conflict_needs_two_tasks(tmp_path: Path) -> None:
    data = squares(tmp_path / "few", {"one": (10, True), "two": (90, True)}, count=1)
    with pytest.raises(DataError, match="task 'one' has 1 image"):
        gradient_conflict(Line(data.tasks), data)
    alone = squares(tmp_path / "alone", {"one": (10, True)})
    with pytest.raises(UsageError, match="two tasks or more"):
        gradient_conflict(Line(alone.tasks), alone)
    with pytest.raises(UsageError, match="batches: found 3"):
        gradient_conflict(Line(data.tasks), data, batches=3)


class Told(LesionModel):
    """A model whose prototypes and gates are given."""

    def __init__(self, prototypes: dict[str, list[Any]], gate: list[list[float]], names: str = "ab") -> None:
        super().__init__(cast(Any, None), TaskSet([Task(name) for name in names]))
        self.told = {name: torch.tensor(values) for name, values in prototypes.items()}
        self.gate = torch.tensor(gate) if gate else None

    def prototypes(self) -> dict[str, Tensor]:
        return self.told

    def gate_weights(self) -> Tensor | None:
        return self.gate

    def splits(self) -> dict[str, int]:
        if self.gate is None:
            return {}
        return {name: sum(w < 0.5 for w in weights) for name, weights in zip(self.tasks.names, self.gate.tolist(), strict=True)}


def test_prototypes_are_compared_by_pairs_of_tasks_and_foreground_with_background() -> None:
    # (T, 2, C): a has fg (1, 0), bg (0, 1); b has fg (0.6, 0.8), bg (-0.6, -0.8)
    model = Told({"pgtd1": [[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [-0.6, -0.8]]]}, [])
    models = {("A4", 0): model, ("A1", 0): Told({}, [])}
    pairs = prototype_table(models)
    assert pairs.drop(columns="cosine").to_dict("records") == [{"row": "A4", "seed": 0, "pgtd": "pgtd1", "task": "a", "other": "b"}]
    assert pairs["cosine"].tolist() == pytest.approx([0.6])
    apart = separation_table(models)
    assert apart[["row", "task"]].to_numpy().tolist() == [["A4", "a"], ["A4", "b"]]
    assert apart["separation"].tolist() == pytest.approx([1.0, 2.0])


def test_splits_are_listed_with_the_gates_ends_and_models_without_a_gate_are_left_out() -> None:
    models = {("A4", 7): Told({}, [[0.1, 0.6, 0.9], [0.0, 0.1, 0.2]]), ("A1", 7): Told({}, [])}
    splits = split_table(models)
    assert splits[["row", "seed", "task", "split", "blocks"]].to_numpy().tolist() == [["A4", 7, "a", 1, 3], ["A4", 7, "b", 3, 3]]
    assert splits[["first", "last"]].to_numpy().ravel().tolist() == pytest.approx([0.1, 0.9, 0.0, 0.2])
    gates = gate_table(models)
    assert gates["block"].tolist() == [0, 1, 2, 0, 1, 2]
    assert gates["weight"].tolist() == pytest.approx([0.1, 0.6, 0.9, 0.0, 0.1, 0.2])
    assert list(split_table({}).columns) == list(splits.columns)


def test_all_tasks_cost_the_shared_route_once_and_each_its_own_blocks():
    lines = [("late", 1, "a", 3, 4), ("late", 1, "b", 3, 4), ("uneven", 1, "a", 0, 4), ("uneven", 1, "b", 2, 4), ("never", 2, "a", 4, 4)]
    found = sharing_table(pd.DataFrame(lines, columns=["row", "seed", "task", "split", "blocks"]))
    assert [tuple(line) for line in found.to_numpy()] == [
        ("late", 1, 2, (3 + 2 * 1) / 4),
        ("uneven", 1, 2, (2 + 4 + 2) / 4),  # the shared route runs for the second task alone
        ("never", 2, 1, 1.0),
    ]
    assert sharing_table(split_table({})).empty


def image_scores(dice: dict[tuple[str, int, str], float]) -> pd.DataFrame:
    """One image for each row, seed and task with this Dice, and a confusion matrix with foreground IoU = background IoU = Dice / 2."""
    rows = []
    for (row, seed, task), value in dice.items():
        counts = {"tpseg_tp": value * 1e6, "tpseg_fp": (2 - value) * 1e6, "tpseg_fn": 0.0, "tpseg_tn": value * 1e6}
        rows.append({"row": row, "seed": seed, "task": task, "image": "0.png", "tpseg_dice": value, **counts})
    return pd.DataFrame(rows)


def test_a_tasks_scores_are_those_of_the_papers_protocol() -> None:
    found = task_scores(image_scores({("A4", 0, "a"): 0.8}))
    assert found[["row", "seed", "task"]].to_numpy().tolist() == [["A4", 0, "a"]]
    assert found["dice"].tolist() == pytest.approx([0.8])
    assert found["iou"].tolist() == pytest.approx([0.4])  # tp 0.8, fp 1.2, tn 0.8: 0.8 / 2 on either side


def test_seeds_are_averaged_before_anything_is_correlated_and_unscored_seeds_are_left_out() -> None:
    names = "abcde"
    shift = {0: -0.1, 1: 0.1, 2: 100.0}
    apart = pd.DataFrame(
        [
            ("A4", seed, pgtd, name, start + 0.3 * position + shift[seed])
            for seed in shift
            for pgtd, start in (("pgtd2", 0.5), ("pgtd1", 0.0))
            for position, name in enumerate(names)
        ],
        columns=["row", "seed", "pgtd", "task", "separation"],
    )
    # y = 2, 1, 4, 3, 5 in tenths against x = 1..5: r = rho = 0.8; Fisher: tanh(atanh 0.8 -+ 1.96 / sqrt 2)
    dice = dict(zip(names, (0.2, 0.1, 0.4, 0.3, 0.5), strict=True))
    scores = image_scores({("A4", seed, name): dice[name] - 0.3 * shift[seed] for seed in (0, 1) for name in names})
    points = separation_against_scores(apart, scores).set_index(["pgtd", "task"])
    assert points.loc[("pgtd1", "c"), "separation"] == pytest.approx(0.6)  # seed 2 has no scores
    assert points.loc[("mean", "c"), "separation"] == pytest.approx(0.85)
    assert points.loc[("pgtd1", "c"), "dice"] == pytest.approx(0.4)
    table = correlation_table(apart, scores)
    assert table[["pgtd", "measure", "tasks"]].to_numpy().tolist() == [
        [pgtd, measure, 5] for pgtd in ("pgtd2", "pgtd1", "mean") for measure in ("dice", "iou")
    ]
    for column, value in {"pearson": 0.8, "low": -0.2796, "high": 0.9862, "spearman": 0.8}.items():
        assert table[column].tolist() == pytest.approx([value] * 6, abs=1e-4)


def test_no_correlation_is_claimed_where_there_is_nothing_to_correlate() -> None:
    assert np.isnan(correlate(np.arange(3.0), np.arange(3.0))).all()
    assert np.isnan(correlate(np.full(8, 2.0), np.arange(8.0))).all()  # opposite by construction
    assert np.isnan(correlate(np.arange(8.0), np.full(8, 0.9))).all()
    assert correlate(np.arange(8.0), np.arange(8.0) ** 3)[3] == pytest.approx(1)  # ranks agree, the line does not
    assert correlate(np.arange(8.0), np.arange(8.0) ** 3)[0] < 0.95
