"""Two evaluations of the same images are compared image by image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tpseg.cli import main
from tpseg.core.errors import DataError
from tpseg.evaluation.compare import compare_evaluations


def write(path: Path, dice: dict[str, list[float]], group: str = "") -> Path:
    rows = [
        {"task": task, "image": f"{number}.png", "split": "test", "group": group, "height": 8, "width": 8, "dice": value, "iou": value}
        for task, values in dice.items()
        for number, value in enumerate(values)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def test_differences_by_hand(tmp_path):
    """Task a: 0.5 and 0.7 against 0.4 and 0.4, +0.2 on average; task b: no difference; average +0.1."""
    one = write(tmp_path / "one.csv", {"a": [0.5, 0.7], "b": [0.3, 0.9]})
    other = write(tmp_path / "other.csv", {"a": [0.4, 0.4], "b": [0.3, 0.9]})
    table = compare_evaluations(one, other).set_index("task")
    np.testing.assert_allclose(table["difference"], [0.2, 0.0, 0.1], atol=1e-12)
    np.testing.assert_allclose(table.loc["a", ["low", "high"]].astype(float), [0.1, 0.3], atol=1e-12)
    assert np.isnan(table.loc["b", "p"])
    assert table.loc["a", "p"] == pytest.approx(0.5)  # of the four ways to give two differences signs, two are as one-sided as this
    assert compare_evaluations(other, one).set_index("task").loc["a", "p"] == pytest.approx(0.5)


def test_a_steady_gain_is_significant_and_noise_is_not(tmp_path):
    rng = np.random.default_rng(0)
    base = rng.uniform(0.2, 0.8, 40)
    gain = compare_evaluations(
        write(tmp_path / "a.csv", {"t": list(base + 0.05 + rng.normal(0, 0.01, 40))}), write(tmp_path / "b.csv", {"t": list(base)})
    )
    noise = compare_evaluations(write(tmp_path / "c.csv", {"t": list(base + rng.normal(0, 0.05, 40))}), tmp_path / "b.csv")
    assert gain["p"][0] < 1e-6
    assert gain["low"][0] > 0
    assert noise["p"][0] > 0.01
    assert noise["low"][0] < 0 < noise["high"][0]


def test_one_patient_tells_nothing_about_the_spread(tmp_path):
    one = write(tmp_path / "one.csv", {"a": [0.5, 0.7]}, group="p1")
    other = write(tmp_path / "other.csv", {"a": [0.4, 0.4]}, group="p1")
    assert compare_evaluations(one, other)["low"].isna().all()


def test_other_images_are_refused(tmp_path):
    one, other = write(tmp_path / "one.csv", {"a": [0.5, 0.7]}), write(tmp_path / "other.csv", {"a": [0.5]})
    with pytest.raises(DataError, match="2 and 1 images, 1 of them the same"):
        compare_evaluations(one, other)


def test_the_verb_takes_run_folders(tmp_path, capsys):
    for name, dice in (("x", 0.6), ("y", 0.5)):
        (tmp_path / name / "evaluation").mkdir(parents=True)
        write(tmp_path / name / "evaluation" / "test.csv", {"a": [dice, dice + 0.2]})
    assert main(["compare", str(tmp_path / "x"), str(tmp_path / "y")]) == 0
    assert "+10.0" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "x"), str(tmp_path / "z")]) == 1
