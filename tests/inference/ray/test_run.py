"""A bulk run from end to end: what is done is never done again, what failed is listed, and no mask is lost or torn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from miniature import SETTINGS, TASKS, disc
from PIL import Image

import tpseg.inference.ray.run
from tpseg.checkpoints.model_folder import save_model
from tpseg.cli import main
from tpseg.core.config import ModelConfig
from tpseg.core.errors import UsageError
from tpseg.core.tasks import Task, TaskSet
from tpseg.imaging.pictures.formats import read_mask
from tpseg.inference import Segmenter
from tpseg.inference.ray.manifest import read_lines, read_manifest
from tpseg.inference.ray.pipeline import Worker, decode, write
from tpseg.inference.ray.pool import Pool
from tpseg.inference.ray.run import BLOCK, by_image, cause, connected, predict_bulk
from tpseg.inference.ray.store import Folder
from tpseg.models.catalogue import create

Run = Callable[..., Any]


def write_images(folder: Path, count: int, height: int = 48, width: int = 48, seed: int = 0) -> list[Path]:
    """Pictures folder/K/NNN.png, K from 0 to 2."""
    rng = np.random.default_rng(seed)
    paths = [folder / str(number % 3) / f"{number:03d}.png" for number in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disc("bright_disc", rng, height, width)[0]).save(path)
    return paths


# The run's logic, its three steps called one after another in this process


@pytest.fixture
def segmented(monkeypatch, miniature_trunk) -> list[str]:
    """The steps run here and now, in blocks of two images; returns the images that the worker was given."""
    seen: list[str] = []

    def here(left: pd.DataFrame, pool: Pool, size: int, batch_size: int, worker: dict[str, Any], writing: dict[str, Any]) -> Iterator[str]:
        segment, images = Worker(**worker), by_image(left)
        for start in range(0, len(images), 2):
            batch = decode({name: column.to_numpy(object) for name, column in images[start : start + 2].items()}, size)
            seen.extend(batch["image"])
            yield from write(segment(batch), **writing)["image"]

    monkeypatch.setattr(tpseg.inference.ray.run, "stream", here)
    monkeypatch.setattr(tpseg.inference.ray.run, "cluster_nodes", lambda: [tpseg.inference.ray.run.Node(2, 0)])
    monkeypatch.setattr(tpseg.inference.ray.run, "connected", lambda address: nullcontext())
    return seen


@pytest.fixture
def images(tmp_path) -> list[Path]:
    return write_images(tmp_path / "in", 7)


@pytest.fixture
def bulk(trained, tmp_path, images, segmented) -> Run:
    """Segment all images of in/ for `bright_disc` into out/; keywords are those of predict_bulk."""

    def run(**changes: Any) -> Any:
        settings = {"task": "bright_disc", "device": "cpu"} | changes
        return predict_bulk(str(settings.pop("model", trained)), [str(tmp_path / "in")], str(tmp_path / "out"), **settings)

    return run


def names(paths: list[Path] | list[str]) -> list[str]:
    return sorted(Path(path).name for path in paths)


def test_every_image_gets_a_mask_and_a_second_run_has_nothing_to_do(bulk, images, segmented, tmp_path):
    report = bulk()
    assert (report.masks, report.before, len(report.failures)) == (7, 0, 0)
    for image in images:
        assert read_mask(tmp_path / "out" / image.relative_to(tmp_path / "in")).mask.shape == (48, 48)
    assert names(segmented) == names(images)
    segmented.clear()
    report = bulk()
    assert (report.masks, report.before, segmented) == (7, 7, [])
    assert str(report) == "7 of 7 masks (7 were there before)"


def test_an_interrupted_run_goes_on_where_it_was(bulk, images, segmented):
    def stop(items: Any, total: int, description: str) -> Iterator[str]:
        for number, item in enumerate(items):
            if number == 4:  # the third block of two is written, and in the manifest
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        bulk(watch=stop)
    first = names(segmented)
    segmented.clear()
    assert bulk().before == len(first) == 6
    assert sorted(first + names(segmented)) == names(images)


def test_a_mask_that_was_removed_or_cut_short_is_made_anew(bulk, images, segmented, tmp_path):
    bulk()
    masks = [tmp_path / "out" / image.relative_to(tmp_path / "in") for image in images]
    whole = masks[3].read_bytes()
    masks[1].unlink()
    masks[3].write_bytes(whole[:50])
    segmented.clear()
    bulk()
    assert names(segmented) == ["001.png", "003.png"]
    assert masks[3].read_bytes() == whole


def test_new_images_alone_are_done(bulk, segmented, tmp_path):
    bulk()
    segmented.clear()
    write_images(tmp_path / "in", 9)
    assert (bulk().masks, names(segmented)) == (9, ["007.png", "008.png"])


def test_failures_are_listed_and_tried_again_when_asked(bulk, images, segmented, tmp_path):
    good = images[5].read_bytes()
    images[5].write_bytes(good[:200])
    report = bulk()
    assert str(report) == "6 of 7 masks"
    listed = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert listed.columns.tolist() == ["image", "task", "reason"]
    assert listed[["image", "task"]].to_numpy().tolist() == [[str(images[5]), "bright_disc"]]
    assert "005.png: cannot be decoded" in listed["reason"][0]
    images[5].write_bytes(good)
    segmented.clear()
    assert len(bulk().failures) == 1  # not asked
    assert segmented == []
    report = bulk(retry_failed=True)
    assert (len(report.failures), report.before, names(segmented)) == (0, 6, ["005.png"])
    assert pd.read_csv(tmp_path / "out" / "failures.csv").empty


def test_another_task_or_model_into_the_same_folder_is_refused(bulk, trained, images, tmp_path, segmented):
    bulk()
    segmented.clear()
    with pytest.raises(UsageError, match=r"another run \(tasks was bright_disc, is dark_disc\); choose another --out"):
        bulk(task="dark_disc")
    other = Segmenter(trained, device="cpu").network.model
    with torch.no_grad():
        next(iter(other.parameters())).add_(1)
    save_model(other.float(), tmp_path / "other")
    with pytest.raises(UsageError, match=r"another run \(model was [0-9a-f]{64}, is [0-9a-f]{64}\)"):
        bulk(model=tmp_path / "other")
    assert segmented == []


def test_a_mask_of_another_image_is_never_replaced(bulk, trained, images, tmp_path, segmented):
    bulk()
    write_images(tmp_path / "more", 1)
    with pytest.raises(UsageError, match=r"more/0/000\.png: its mask 0/000\.png would take the place of that of .*in/0/000\.png"):
        predict_bulk(str(trained), [str(tmp_path / "more")], str(tmp_path / "out"), task="bright_disc", device="cpu")


def test_tasks_share_an_image_and_have_a_folder_each(bulk, images, segmented, tmp_path):
    report = bulk(task=None, all_tasks=True)
    assert report.masks == 14
    assert names(segmented) == names(images)  # decoded once for both
    assert {path.relative_to(tmp_path / "out").parts[0] for path in (tmp_path / "out").rglob("*.png")} == set(TASKS)


def test_on_the_command_line(trained, images, segmented, tmp_path, capsys):
    images[2].write_bytes(b"")
    line = ["predict", str(trained), str(tmp_path / "in"), "--task", "dark_disc", "--out", f"file://{tmp_path}/out", "--engine", "ray"]
    assert main([*line, "--device", "cpu"]) == 1
    out, err = capsys.readouterr()
    assert f"6 of 7 masks in file://{tmp_path}/out" in out
    assert f"skipped: {images[2]}: cannot be decoded" in err
    assert main([*line[:-2], "--workers", "2"]) == 2
    assert "--workers, --address and --retry-failed belong to --engine ray" in capsys.readouterr().err


def test_a_program_is_opened_here_and_by_the_workers_only_if_it_is_trusted(trained, images, segmented, tmp_path, capsys, monkeypatch):
    (tmp_path / "model.pt2").write_bytes(b"a program")
    line = ["predict", str(tmp_path / "model.pt2"), str(tmp_path / "in"), "--task", "dark_disc", "--out", str(tmp_path / "out")]
    line += ["--engine", "ray", "--device", "cpu"]
    assert main(line) == 2
    assert "if you trust who made it, say --trust" in " ".join(capsys.readouterr().err.split())
    network = Segmenter(trained, device="cpu").network
    asked = []

    def opened(model: Any, device: Any, weights: Any, trust: bool) -> Any:
        asked.append((Path(model).name, trust))
        return network

    monkeypatch.setattr("tpseg.inference.segmenter.open_network", opened)
    assert main([*line, "--trust"]) == 0
    assert asked == [("model.pt2", True), ("model.pt2", True)]  # to see whether it can be opened, and to segment
    assert names(segmented) == names(images)


def test_many_failures_are_not_all_printed(tmp_path):
    report = tpseg.inference.ray.run.Report(
        30, 0, pd.DataFrame({"image": "a", "task": "b", "reason": [str(number) for number in range(30)]})
    )
    assert len(report.complaints(shown=5)) == 6
    assert report.complaints(shown=5)[-1] == "and 25 more, listed in failures.csv"


def test_without_ray_the_message_says_what_to_install(bulk, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(UsageError, match=r"pip install '\.\[ray\]' in a checkout"):
        bulk()
    assert not (tmp_path / "out").exists()


def test_the_reason_of_a_distant_error_is_one_line():
    trace = "ray::MapWorker(MapBatches(Worker))\n  File x, line 3, in __init__\n    raise DataError\n"
    assert cause(RuntimeError(f"{trace}tpseg.core.errors.DataError: m: not the same model\n")) == "m: not the same model"
    assert cause(RuntimeError(f"{trace}OSError: [Errno 28] No space left")) == "[Errno 28] No space left"
    assert cause(ConnectionError()) == "ConnectionError"


def test_an_address_where_nobody_answers_is_refused():
    with pytest.raises(UsageError, match=r"--address 127\.0\.0\.1:1: no Ray cluster answers there"), connected("127.0.0.1:1"):
        pass


# The run on a cluster


@pytest.fixture
def cluster(monkeypatch) -> Iterator[Any]:
    """Two nodes of two CPUs each, on this machine; nothing is reported to anybody, and no process is left."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # would write a token into the home folder
    from ray.cluster_utils import Cluster

    before = {process.pid for process in psutil.Process().children(recursive=True)}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 200 << 20, "include_dashboard": False})
    cluster.add_node(num_cpus=2, object_store_memory=200 << 20)
    yield cluster
    cluster.shutdown()
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    psutil.wait_procs(left, timeout=300)
    assert not [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def workers() -> list[psutil.Process]:
    """The processes of the cluster that hold the model."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*")  # Ray's own, of itself
def test_a_worker_killed_midway_costs_no_mask_and_doubles_none(cluster, tmp_path):
    """Two nodes, 500 images, one worker killed: every output present once, none torn."""
    torch.manual_seed(0)
    model = create(ModelConfig(**SETTINGS["model"]), TaskSet([Task(name) for name in TASKS]))
    save_model(model, tmp_path / "model")
    images = write_images(tmp_path / "in", 500)
    killed = []

    def kill_one(items: Any, total: int, description: str) -> Iterator[str]:
        for number, item in enumerate(items):
            if number == 100:
                found = workers()
                assert len(found) == 2
                assert not any("decode" in " ".join(process.cmdline()) for process in found)  # that is done elsewhere, at the same time
                found[0].kill()
                killed.append(found[0].pid)
            yield item

    report = predict_bulk(
        *(str(tmp_path / "model"), [str(tmp_path / "in")], str(tmp_path / "out")),
        **{"task": "bright_disc", "address": cluster.address, "watch": kill_one, "batch_size": 16},
    )
    assert len(killed) == 1
    assert not psutil.pid_exists(killed[0])
    assert (report.masks, report.before, len(report.failures)) == (500, 0, 0)
    out = Folder(str(tmp_path / "out"))
    masks = [tmp_path / "out" / image.relative_to(tmp_path / "in") for image in images]
    assert sorted(tmp_path.glob("out/**/*.png")) == sorted(masks)  # each once, and nothing half-written beside them
    assert all(read_mask(mask).mask.shape == (48, 48) for mask in masks)
    lines = read_lines(out)
    assert sorted(read_manifest(out)["image"]) == sorted(str(image) for image in images)
    assert len(lines) >= 500
    segment = Segmenter(tmp_path / "model", device="cpu")
    for image, mask in list(zip(images, masks, strict=True))[::50]:
        assert (segment(image, "bright_disc").mask != read_mask(mask).mask).mean() < 0.02
    assert BLOCK * 4 > 500  # the killed worker's block was a part of the images, not all
