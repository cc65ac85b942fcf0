"""Training step of two presets, interleaved in one process on one core: python benchmarks/step_time.py small small,baseline"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from tpseg.core.config import load_config
from tpseg.core.tasks import Task, TaskSet
from tpseg.models.heads.losses import segmentation_loss
from tpseg.models.tpseg.network import TPSeg

SIZE, BATCH, TASKS, STEPS, WARM_UP = 160, 16, 8, 9, 2


def main(presets: list[str]) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(42)
    tasks = TaskSet([Task(f"task{number}") for number in range(TASKS)])
    models = {name: TPSeg(load_config(name.split(",")).model, tasks) for name in presets}
    optimisers = {name: torch.optim.AdamW(model.parameters(), fused=True) for name, model in models.items()}
    image, task = torch.randn(BATCH, 3, SIZE, SIZE), torch.arange(BATCH) % TASKS
    mask = (image[:, :1] > 0).float()
    seconds: dict[str, list[float]] = {name: [] for name in presets}
    for _ in range(STEPS):
        for name, model in models.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16):
                output = model(image, task)
            segmentation_loss(output.supervised, mask).mean().backward()
            model.observe(output, mask, task)
            model.move_prototypes()
            optimisers[name].step()
            optimisers[name].zero_grad()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values[WARM_UP:]) for name, values in seconds.items()}
    for name, median in medians.items():
        sys.stdout.write(f"{name}: {median:.2f} s a step, {median / medians[presets[-1]]:.2f} of {presets[-1]}\n")


if __name__ == "__main__":
    main(sys.argv[1:] or ["small", "small,baseline"])
