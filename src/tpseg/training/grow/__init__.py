"""Models that gain and lose tasks after they were trained: add a task, take one out, rename one, put two models together."""

from tpseg.training.grow.adding import add_task
from tpseg.training.grow.surgery import merge, remove_tasks, rename_task

__all__ = ["add_task", "merge", "remove_tasks", "rename_task"]
