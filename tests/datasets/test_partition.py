"""Who is in which split: releases' parts are kept, the others drawn; groups and equal pictures stay together."""

from __future__ import annotations

from collections import Counter

import pytest

from tpseg.datasets.partition import Member, partition

PAPER = {"train": 75, "val": 25}


def members(number: int, split: str = "", size: int = 1) -> list[Member]:
    """Members in groups of `size`; no group for single ones."""
    return [
        Member(f"images/{split}{one}.png", split, f"{split}{one // size}" if size > 1 else "", f"{split}{one}") for one in range(number)
    ]


def counts(kept: list[Member]) -> dict[str, int]:
    return dict(Counter(one.split for one in kept))


def test_a_paper_s_proportion_is_drawn_and_val_cut_from_training() -> None:
    kept, leaks = partition(members(100), PAPER)
    assert counts(kept) == {"train": 68, "val": 7, "test": 25}  # a tenth of 75, within one
    assert leaks == []


def test_the_paper_s_protocol_reports_on_the_same_images_and_calls_them_val() -> None:
    drawn, _ = partition(members(100), PAPER)
    paper, _ = partition(members(100), PAPER, protocol="paper")
    assert counts(paper) == {"train": 75, "val": 25}
    assert {one.name for one in paper if one.split == "val"} == {one.name for one in drawn if one.split == "test"}


def test_without_a_paper_three_parts_are_drawn() -> None:
    kept, _ = partition(members(100), {})
    assert counts(kept) == {"train": 70, "val": 10, "test": 20}


def test_another_seed_draws_other_images_and_the_same_seed_the_same() -> None:
    first, again, other = (partition(members(100), PAPER, seed=seed)[0] for seed in (0, 0, 1))
    assert first == again
    assert counts(other) == counts(first)
    assert other != first


def test_parts_that_a_release_names_are_kept() -> None:
    kept, _ = partition([*members(40, "train"), *members(20, "test")], PAPER)
    assert counts(kept) == {"train": 36, "val": 4, "test": 20}
    kept, _ = partition([*members(40, "train"), *members(5, "val"), *members(20, "test")], {})
    assert counts(kept) == {"train": 40, "val": 5, "test": 20}


def test_groups_stay_together_in_every_draw() -> None:
    kept, _ = partition(members(100, size=5), PAPER)
    for group in {one.group for one in kept}:
        assert len({one.split for one in kept if one.group == group}) == 1
    assert counts(kept)["test"] == 25


def test_equal_pictures_join_their_groups_however_indirectly() -> None:
    chain = [Member("a.png", "", "p1", "x"), Member("b.png", "", "p2", "x"), Member("c.png", "", "p2", "y"), Member("d.png", "", "", "y")]
    kept, _ = partition([*chain, *members(40)], {})
    assert [one.group for one in kept[:4]] == ["p1"] * 4
    assert len({one.split for one in kept[:4]}) == 1


def test_equal_pictures_without_a_group_get_one_and_pictures_that_must_not_be_compared_none() -> None:
    alike = [Member("images/a.png", "", "", "x"), Member("images/b.png", "", "", "x"), *(Member(f"{n}.png", "", "", "") for n in range(3))]
    kept, _ = partition(alike, {})
    assert [one.group for one in kept] == ["a", "a", "", "", ""]


@pytest.mark.parametrize("shared", ["group", "picture"])
def test_training_images_that_belong_with_a_reported_one_are_left_out_but_for_the_paper_s_protocol(shared: str) -> None:
    group, digest = ("p", "x") if shared == "group" else ("", "r")
    training = [*members(20, "train"), Member("leak.png", "train", group, digest)]
    reported = [*members(4, "test"), Member("reported.png", "test", group, "r")]
    kept, leaks = partition([*training, *reported], PAPER)
    assert [one.name for one in leaks] == ["leak.png"]
    assert "leak.png" not in {one.name for one in kept}
    assert counts(kept)["test"] == 5
    kept, leaks = partition([*training, *reported], PAPER, protocol="paper")
    assert [one.name for one in leaks] == ["leak.png"]
    assert counts(kept) == {"train": 21, "val": 5}


def test_validation_images_that_belong_with_a_reported_one_are_named_too() -> None:
    said = [*members(20, "train"), *members(4, "val"), Member("leak.png", "val", "p", ""), Member("reported.png", "test", "p", "")]
    kept, leaks = partition(said, PAPER)
    assert [one.name for one in leaks] == ["leak.png"]
    assert counts(kept) == {"train": 20, "val": 4, "test": 1}


@pytest.mark.parametrize("number", [1, 2])
def test_very_few_images_are_trained_on(number: int) -> None:
    kept, _ = partition(members(number), PAPER)
    assert kept[0].split in ("train", "test")
    assert "train" in counts(kept)
