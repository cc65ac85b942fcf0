"""The command line: one function per verb, no logic. `tpseg --help` lists the verbs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

import tpseg
from tpseg.arguments import Verb, overview, read_arguments, split_verb
from tpseg.config import ModelConfig, SamplingConfig, TrainingConfig
from tpseg.errors import TPSegError, UsageError

Protocol = Literal["default", "tpseg", "spider", "pranet", "nnunet", "all"]
Split = Literal["train", "val", "test"]

out_console = Console(markup=False, highlight=False, soft_wrap=True)
error_console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def phantoms(out: Path, cases: int = 48, size: int = 192, seed: int = 0) -> None:
    """Write the phantom data set: eight synthetic tasks that look like their modalities. No patient data, no download.

    Args:
        out: Folder to write; it must not exist or be empty.
        cases: Images of each task.
        size: Height of the images in pixels.
        seed: Another seed gives other images.
    """
    from tpseg.data.phantoms import write_phantoms

    out_console.print(f"wrote {write_phantoms(out, cases, size, seed)}")


def data_check(data: Path, json: Path | None = None) -> int:
    """Look for what hurts most: unreadable files, masks that do not fit, duplicates and groups across splits.

    Exits 1 if there are errors.

    Args:
        data: The data set's tasks.yaml.
        json: Also write the findings to this file.
    """
    from tpseg.data.check import check_dataset
    from tpseg.data.manifest import read_dataset
    from tpseg.files import write_atomically
    from tpseg.progress import track_calls

    dataset = read_dataset(data)
    with track_calls("checking") as progress:
        report = check_dataset(dataset, progress)
    out_console.print(report)
    if json is not None:
        write_atomically(json, report.to_json())
    return 0 if report.ok else 1


def data_split(
    folder: Path,
    task: str,
    modality: str = "unknown",
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    group: str | None = None,
    seed: int = 0,
    tasks: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Split a folder of image-mask pairs into train, val and test, whole groups at a time, and add it to a tasks.yaml.

    Args:
        folder: Holds images/ and masks/ with the same file names, whatever their endings.
        task: Name of the task.
        modality: What made the images: dermoscopy, ultrasound, CT.
        fractions: Shares of train, val and test.
        group: Regular expression on the file name; its first group, or the whole match, is the patient or case.
        seed: Another seed draws another split.
        tasks: The tasks.yaml to write; by default beside the folder.
        overwrite: Draw anew where a split.csv exists.
    """
    from tpseg.data.splits import split_folder

    target = tasks or folder.resolve().parent / "tasks.yaml"
    table = split_folder(folder, task, modality, fractions, seed, group, target, overwrite)
    counts = ", ".join(f"{split} {number}" for split, number in table["split"].value_counts().items())
    out_console.print(f"wrote {folder / 'split.csv'} ({counts}) and the task '{task}' in {target}")


def train(
    data: Path,
    out: Path,
    config: str = "default",
    steps: int | None = None,
    tasks: list[str] | None = None,
    resume: bool = False,
    devices: str | None = None,
    nodes: int | None = None,
    strategy: Literal["auto", "ddp", "fsdp"] = "auto",
    model: ModelConfig = ModelConfig(),  # noqa: B008 - jsonargparse reads the default
    sampling: SamplingConfig = SamplingConfig(),  # noqa: B008
    training: TrainingConfig = TrainingConfig(),  # noqa: B008
) -> None:
    """Train one model on all tasks of a data set.

    Args:
        data: The data set's tasks.yaml.
        out: Run folder to write: model/ (best val Dice), checkpoints/, logs/.
        config: Preset names or YAML files, comma-separated, each laid over the one before: small,baseline.
        steps: Stop after this many optimiser steps.
        tasks: Learn these tasks of the data set only, comma-separated.
        resume: Continue the run that `out` holds, with the same settings; on as many devices as you like.
        devices: Devices of this machine to train on, each with its share of every batch: a number, or auto for all;
            by default one, or what torchrun or srun has started.
        nodes: Machines; each needs its processes started by torchrun or srun (docs/scaling.md).
        strategy: How devices share the work: ddp, each with the whole model, or fsdp, the trunk's weights in parts (GPUs only).
        model: The network.
        sampling: The training images.
        training: The recipe.
    """
    from tpseg.config import Config
    from tpseg.launching import is_first
    from tpseg.training import train as run

    settings = Config(model, sampling, training)
    run(settings, data, out, steps=steps, tasks=tasks, resume=resume, devices=devices, nodes=nodes, strategy=strategy)
    if is_first():
        out_console.print(f"trained: the best model is {out / 'model'}. Next: tpseg evaluate {out} --data {data}")


def evaluate(
    data: Path,
    model: str | None = None,
    predictions: Path | None = None,
    split: Split = "test",
    protocol: Protocol = "default",
    tasks: list[str] | None = None,
    out: Path | None = None,
    size: int = 512,
    weights: str | None = None,
    batch_size: int = 8,
) -> None:
    """Score a model, or masks made by anything else, under a named protocol.

    Args:
        data: The data set's tasks.yaml.
        model: Model folder, run folder or hub id.
        predictions: Score the masks of this folder (TASK/NAME.png) instead of a model's.
        split: Which split to score.
        protocol: The definition of Dice and IoU to show; all shows every one. The files always hold all.
        tasks: Score these tasks only, comma-separated; needs --out, for the full evaluation stays.
        out: Where to write SPLIT.json and SPLIT.csv; by default evaluation/ in the run folder, or beside a model or predictions folder.
        size: Input size in pixels that protocol 'tpseg' scores a predictions folder at.
        weights: File of the frozen trunk, if it is not where the model's config.json says.
        batch_size: Images in a forward pass.
    """
    from tpseg.data.manifest import read_dataset
    from tpseg.evaluation import evaluate_model, evaluate_predictions, place_of_evaluation, summary_table
    from tpseg.metrics import resolve_protocols
    from tpseg.prediction import Segmenter
    from tpseg.progress import track

    if tasks is not None and out is None:
        raise UsageError("--tasks scores a part of the data: give --out, so that it does not replace the full evaluation")
    dataset = read_dataset(data) if tasks is None else read_dataset(data).only(tasks)
    if predictions is not None and model is None:
        place = out or predictions.parent / "evaluation"
        summary = evaluate_predictions(predictions, dataset, split, ["all"], place, size, watch=track)
    elif model is not None and predictions is None:
        place = out or place_of_evaluation(model)
        segmenter = Segmenter(model, weights=weights)
        summary = evaluate_model(segmenter, dataset, split, ["all"], place, batch_size=batch_size, watch=track)
    else:
        raise UsageError("evaluate what? Give either MODEL or --predictions FOLDER")
    for name in resolve_protocols(protocol):
        out_console.print(summary_table(summary, name))
    out_console.print(f"wrote {place / split}.json (all protocols) and {place / split}.csv (a row per image)")


def compare(first: Path, second: Path, split: Split = "test") -> None:
    """Compare two evaluations image by image: difference in Dice with intervals and a paired test.

    Args:
        first: Run folder, or the CSV file of an evaluation.
        second: What it is compared with.
        split: The evaluated split.
    """
    from tpseg.comparison import compare_evaluations, comparison_table

    tables = [path / "evaluation" / f"{split}.csv" if path.suffix != ".csv" else path for path in (first, second)]
    out_console.print(comparison_table(compare_evaluations(*tables), (str(first), str(second))))


def predict(
    model: str,
    inputs: list[str],
    task: str | None = None,
    all_tasks: bool = False,
    out: str = "predictions",
    probability: bool = False,
    overlay: bool = False,
    weights: str | None = None,
    device: str | None = None,
    batch_size: int = 8,
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
    address: str | None = None,
    retry_failed: bool = False,
) -> int:
    """Segment images: a mask for each, of its own size. Bad files are named and skipped; then the exit code is 1.

    With --engine ray on many processes or machines, from and to any store (s3://...), resumed by the same command.

    Args:
        model: Model folder, run folder or hub id.
        inputs: Files, folders, globs, or @FILE with a path per line.
        task: Name of the task, as `tpseg info MODEL` lists them.
        all_tasks: Segment for every task of the model, in a folder per task.
        out: Folder for the masks; with --engine ray also a URL.
        probability: Also write the probability as 16-bit PNG.
        overlay: Also write the contour over the image.
        weights: File of the frozen trunk, if it is not where the model's config.json says.
        device: cpu, cuda, mps; by default the fastest there is.
        batch_size: Images in a forward pass.
        engine: local, or ray for many images; then inputs may be CSV files image[,task] and URLs too.
        workers: With --engine ray: processes that hold the model; by default one a GPU, or one for 4 CPUs.
        address: With --engine ray: of a Ray cluster; by default RAY_ADDRESS, else this machine.
        retry_failed: With --engine ray: try those again that failed in an earlier run.
    """
    from tpseg.progress import track

    if engine == "ray":
        from tpseg.bulk.run import predict_bulk

        bulk = predict_bulk(
            model,
            inputs,
            out,
            task=task,
            all_tasks=all_tasks,
            probability=probability,
            overlay=overlay,
            weights=weights,
            device=device,
            batch_size=batch_size,
            workers=workers,
            address=address,
            retry_failed=retry_failed,
            watch=track,
        )
        for line in bulk.complaints():
            error_console.print(line, style="red")
        out_console.print(f"{bulk} in {out}")
        return 1 if len(bulk.failures) else 0
    if workers is not None or address is not None or retry_failed:
        raise UsageError("--workers, --address and --retry-failed belong to --engine ray; leave them out or add it")
    from tpseg.prediction import Failure, Segmenter, choose_tasks, find_images, predict_files

    files = find_images(inputs)
    segmenter = Segmenter(model, device=device, weights=weights)
    tasks = choose_tasks(segmenter.tasks, task, all_tasks)
    results = predict_files(segmenter, files, tasks, Path(out), probability=probability, overlay=overlay, batch_size=batch_size)
    failures = [result for result in track(results, len(files), "segmenting") if isinstance(result, Failure)]
    for failure in failures:
        error_console.print(f"skipped: {failure.reason}", style="red")
    out_console.print(f"segmented {len(files) - len(failures)} of {len(files)} images into {out}")
    return 1 if failures else 0


def export(
    model: str,
    format: Literal["onnx", "openvino", "torch"] = "onnx",
    tasks: list[str] | None = None,
    out: Path | None = None,
    data: Path | None = None,
    split: Split = "val",
    images: int = 64,
    check_sizes: list[int] | None = None,
    check_batches: list[int] = [1, 3],  # noqa: B006 - never changed
    int8: bool = False,
    calibration: int = 32,
    opset: int = 18,
    weights: str | None = None,
) -> int:
    """Write a model, its gate hardened, to a file that runs without tpseg, and compare it with PyTorch.

    Exits 1 if a 32-bit file differs by more than 0.001 in a logit or agrees by less than Dice 0.999 in a mask.

    Args:
        model: Model folder, run folder or hub id.
        format: onnx, openvino (extra openvino) or torch (torch.export).
        tasks: Only these tasks, comma-separated; one needs no input `task`. By default all.
        out: The file; by default model.onnx, model.xml or model.pt2. The report is FILE.json.
        data: A tasks.yaml: compare on its images, and state what hardening costs in Dice; by default on phantoms.
        split: Which split to compare on.
        images: Compare and score at most this many of its images.
        check_sizes: Compare at these heights and widths; by default the model's.
        check_batches: Compare with so many images in a call.
        int8: Also write FILE.int8.onnx, with ranges from training images of --data, and its Dice.
        calibration: Number of those images.
        opset: Version of ONNX's operators.
        weights: File of the frozen trunk, if it is not where the model's config.json says.
    """
    from tpseg.data.manifest import read_dataset
    from tpseg.export.conduct import export as run

    same = True
    for path, report in run(
        model,
        format,
        tasks,
        out,
        opset=opset,
        data=None if data is None else read_dataset(data),
        split=split,
        images=images,
        sizes=check_sizes,
        batches=check_batches,
        int8=int8,
        calibration=calibration,
        weights=weights,
    ):
        for table in report.tables():
            out_console.print(table)
        out_console.print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB) and {path.with_suffix('.json')}")
        same = same and (report.same or report.precision == "int8")
    return 0 if same else 1


def report(run: Path, data: Path | None = None, split: Split = "test") -> None:
    """Write one self-contained HTML page about a run: data, curves, table, cases, gate, prototypes, settings, provenance.

    Args:
        run: Run folder of tpseg train.
        data: The data set's tasks.yaml, if it is not where it was when training began.
        split: The evaluated split to show.
    """
    from tpseg.report import write_report

    out_console.print(f"wrote {write_report(run, data, split)}")


def info(model: str, tasks: int = 8, size: int | None = None, json: bool = False) -> None:
    """Say what a model or a preset consists of: tasks, splits, parameters by part, FLOPs.

    Args:
        model: Model folder, run folder, hub id, or preset names as in --config of train.
        tasks: Number of tasks, for a preset.
        size: Image size in pixels for the FLOPs; by default the model's own.
        json: Print JSON.
    """
    from tpseg.inspection import describe, info_table

    content = describe(model, tasks, size)
    if json:
        out_console.print_json(data=content)
    else:
        out_console.print(info_table(content))


def study(
    name: str,
    data: Path | None = None,
    out: Path = Path("studies"),
    budget: str = "small",
    seeds: int = 3,
    rows: list[str] | None = None,
    steps: int | None = None,
    protocol: Protocol = "tpseg",
    jobs: int | None = None,
    dry_run: bool = False,
) -> int:
    """Rerun a table or figure of the paper: train its rows, test them against the full model, write table and figures.

    NAME is table2, table3, table4, table5, fig5 to fig8, choices (what the paper leaves open), learned (what the model
    learned), all, or a YAML file of variants. Finished models are not trained again; exits 1 if one failed.

    Args:
        name: The study, or several, comma-separated.
        data: The data set's tasks.yaml; table5 needs none.
        out: Folder for models, tables and figures; studies in one folder share their models.
        budget: tiny, small, medium, full, paper, or a YAML file: size, recipe and steps of every model.
        seeds: Number of seeds.
        rows: Only these rows, comma-separated, and the one that the others are tested against.
        steps: Optimiser steps, in the place of the budget's.
        protocol: The definition of Dice and IoU.
        jobs: Models to train at a time; by default one on a GPU, two on a CPU.
        dry_run: Print the plan with an estimate of its time, and stop.
    """
    from tpseg.progress import track_ends
    from tpseg.studies.conduct import conduct, make_plan, plan_table, study_names
    from tpseg.studies.results import write_results
    from tpseg.studies.run import resolve_jobs
    from tpseg.studies.table5 import table5

    names = study_names(name)
    for part in table5(out / "table5", seconds=0 if dry_run else 45) if "table5" in names else ():
        out_console.print(part)
    names = [one for one in names if one != "table5"]
    if not names:
        return 0
    if data is None:
        raise UsageError("--data: which data set? Give its tasks.yaml")
    plan = make_plan(names, data, out, budget, seeds, rows, steps)
    jobs = resolve_jobs(jobs)
    out_console.print(plan_table(plan, jobs))
    if dry_run:
        return 0
    with track_ends("training models", len(plan.unfinished())) as ended:
        failures = conduct(plan, jobs, ended)
    for folder, table in write_results(plan, protocol):
        out_console.print(table.to_terminal(without=[task.title for task in plan.data.tasks]), f"wrote {folder}", sep="\n")
    for failure in failures:
        error_console.print(str(failure), style="red")
    return 1 if failures else 0


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


if __name__ == "__main__":
    sys.exit(main())
