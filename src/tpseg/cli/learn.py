"""Verbs that make models and judge them: train, evaluate, compare, report, study, info."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tpseg.cli.arguments import Outcome
from tpseg.cli.console import Protocol, Split, error_console, out_console
from tpseg.core.config import ModelConfig, SamplingConfig, TrainingConfig
from tpseg.core.errors import UsageError


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
) -> Outcome:
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
    from tpseg.checkpoints.model_folder import read_provenance
    from tpseg.core.config import Config
    from tpseg.training.process_group import is_first
    from tpseg.training.run import train as run

    settings = Config(model, sampling, training)
    run(settings, data, out, steps=steps, tasks=tasks, resume=resume, devices=devices, nodes=nodes, strategy=strategy)
    if not is_first():
        return Outcome({})
    named = settings.model.weights if settings.model.freeze else None
    out_console.print(f"trained: the best model is {out / 'model'}. Next: tpseg evaluate {out} --data {data}{way_to_trunk(named)}")
    best = read_provenance(out / "model" / "provenance.json").get("training", {})
    return Outcome({"run": out, "model": out / "model", "best": best})


def way_to_trunk(named: str | None) -> str:
    """What a command that uses a model needs besides, if its frozen trunk is a file of the user's, which its folder does not hold."""
    if named is None or not Path(named).exists():
        return ""
    return f" --weights {named} (or TPSEG_WEIGHTS={named} for all commands: the model's folder does not hold its frozen trunk)"


def reproduce(run: str, data: Path | None = None, out: Path | None = None) -> Outcome:
    """Repeat a training run from what it says of itself, and compare: weights bit by bit, and metrics. Exits 1 if they differ.

    Args:
        run: Run folder of tpseg train, or a model folder.
        data: The data set's tasks.yaml, if it is not where it was; for a model folder always.
        out: Run folder to write; by default beside the run, its name with -again.
    """
    from tpseg.training.reproduce import reproduce as repeat

    found = repeat(Path(run), data, out)
    if found.table().row_count:
        out_console.print(found.table())
    out_console.print(found.verdict())
    return Outcome({**vars(found), "same": found.same, "verdict": found.verdict()}, 0 if found.same else 1)


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
    trust: bool = False,
    device: str | None = None,
    batch_size: int = 8,
) -> Outcome:
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
        weights: File of the frozen trunk, where neither its folder nor the hub nor TPSEG_WEIGHTS has it.
        trust: Open a .pt2 file, which is a program and can do anything: only if you trust who made it.
        device: cpu, cuda, mps; by default the fastest there is.
        batch_size: Images in a forward pass.
    """
    from tpseg.checkpoints.model_folder import find_model, refresh_card
    from tpseg.core.progress import track
    from tpseg.data.manifest import read_dataset
    from tpseg.evaluation.evaluate import evaluate_model, evaluate_predictions, place_of_evaluation, summary_table
    from tpseg.evaluation.metrics import resolve_protocols
    from tpseg.inference import Segmenter

    if tasks is not None and out is None:
        raise UsageError("--tasks scores a part of the data: give --out, so that it does not replace the full evaluation")
    dataset = read_dataset(data) if tasks is None else read_dataset(data).only(tasks)
    if predictions is not None and model is None:
        place = out or predictions.parent / "evaluation"
        summary = evaluate_predictions(predictions, dataset, split, ["all"], place, size, watch=track)
    elif model is not None and predictions is None:
        place = out or place_of_evaluation(model)
        segmenter = Segmenter(model, device=device, weights=weights, trust=trust)
        summary = evaluate_model(segmenter, dataset, split, ["all"], place, batch_size=batch_size, watch=track)
        if split == "test" and tasks is None and Path(model).is_dir():
            refresh_card(find_model(model), place / "test.json")
    else:
        raise UsageError("evaluate what? Give either MODEL or --predictions FOLDER")
    names = resolve_protocols(protocol)
    for name in names:
        out_console.print(summary_table(summary, name))
    for warning in summary[names[0]].get("warnings", ()):
        error_console.sentence(f"warning: {warning}", style="red")
    out_console.print(f"wrote {place / split}.json (all protocols) and {place / split}.csv (a row per image)")
    written = [place / f"{split}.json", place / f"{split}.csv"]
    return Outcome({"split": split, "scores": {name: summary[name] for name in names}, "outputs": written})


def compare(first: Path, second: Path, split: Split = "test") -> Outcome:
    """Compare two evaluations image by image: difference in Dice with intervals and a paired test.

    Args:
        first: Run folder, or the CSV file of an evaluation.
        second: What it is compared with.
        split: The evaluated split.
    """
    from tpseg.evaluation.compare import compare_evaluations, comparison_table

    tables = [path / "evaluation" / f"{split}.csv" if path.suffix != ".csv" else path for path in (first, second)]
    differences = compare_evaluations(*tables)
    out_console.print(comparison_table(differences, (str(first), str(second))))
    return Outcome({"first": first, "second": second, "split": split, "differences": differences.to_dict("records")})


def report(run: Path, data: Path | None = None, split: Split = "test") -> Outcome:
    """Write one self-contained HTML page about a run: data, curves, table, cases, gate, prototypes, settings, provenance.

    Args:
        run: Run folder of tpseg train.
        data: The data set's tasks.yaml, if it is not where it was when training began.
        split: The evaluated split to show.
    """
    from tpseg.report import write_report

    page = write_report(run, data, split)
    out_console.print(f"wrote {page}")
    return Outcome({"outputs": [page]})


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
) -> Outcome:
    """Rerun a table or figure of the paper: train its rows, test them against the full model, write table and figures.

    NAME is table2, table3, table4, table5, fig5 to fig8, choices (what the paper leaves open), learned (what the model
    learned), all, or a YAML file of variants; or verdict: which of the paper's claims the tables in --out bear out. Finished
    models are not trained again; exits 1 if one failed.

    Args:
        name: The study, or several, comma-separated.
        data: The data set's tasks.yaml; table5 and verdict need none.
        out: Folder for models, tables and figures; studies in one folder share their models.
        budget: tiny, small, medium, full, paper, or a YAML file: size, recipe and steps of every model.
        seeds: Number of seeds.
        rows: Only these rows, comma-separated, and the one that the others are tested against.
        steps: Optimiser steps, in the place of the budget's.
        protocol: The definition of Dice and IoU.
        jobs: Models to train at a time; by default one on a GPU, two on a CPU.
        dry_run: Print the plan with an estimate of its time, and stop.
    """
    from tpseg.core.progress import track_ends
    from tpseg.studies.results import write_results
    from tpseg.studies.run_cells import resolve_jobs
    from tpseg.studies.run_study import conduct, make_plan, plan_table, study_names
    from tpseg.studies.table5 import table5
    from tpseg.studies.table_formats import write_table
    from tpseg.studies.verdict import verdict_table

    if name == "verdict":
        table = verdict_table(out)
        write_table(out / "verdict", table)
        out_console.print(table.to_terminal(), f"wrote {out / 'verdict'}", sep="\n")
        return Outcome({"outputs": [out / "verdict"]})
    names = study_names(name)
    for part in table5(out / "table5", seconds=0 if dry_run else 45) if "table5" in names else ():
        out_console.print(part)
    names = [one for one in names if one != "table5"]
    if not names:
        return Outcome({"outputs": [] if dry_run else [out / "table5"]})
    if data is None:
        raise UsageError("--data: which data set? Give its tasks.yaml")
    plan = make_plan(names, data, out, budget, seeds, rows, steps)
    jobs = resolve_jobs(jobs)
    out_console.print(plan_table(plan, jobs))
    counts = {"out": out, "models": len(plan.all_cells()), "to_train": len(plan.unfinished())}
    if dry_run:
        return Outcome(counts)
    with track_ends("steps of all models", sum(cell.steps() for cell in plan.unfinished())) as (moved, say):
        failures = conduct(plan, jobs, moved, say)
    written = []
    for folder, table in write_results(plan, protocol):
        written.append(folder)
        out_console.print(table.to_terminal(without=[task.title for task in plan.data.tasks]), f"wrote {folder}", sep="\n")
    for failure in failures:
        error_console.sentence(str(failure), style="red")
    failed = [{"cell": failure.cell.label, "reason": failure.reason, "log": failure.log} for failure in failures]
    return Outcome({**counts, "outputs": written, "failures": failed}, 1 if failures else 0)


def info(model: str, tasks: int = 8, size: int | None = None) -> Outcome:
    """Say what a model or a preset consists of: tasks, splits, parameters by part, FLOPs.

    Args:
        model: Model folder, run folder, hub id, or preset names as in --config of train.
        tasks: Number of tasks, for a preset.
        size: Image size in pixels for the FLOPs; by default the model's own.
    """
    from tpseg.checkpoints.inspection import describe, info_table

    content = describe(model, tasks, size)
    out_console.print(info_table(content))
    return Outcome(content)
