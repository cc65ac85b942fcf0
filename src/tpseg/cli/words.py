"""What all verbs share: where they print, and the choices of their options."""

from __future__ import annotations

from typing import Literal

from rich.console import Console

Protocol = Literal["default", "tpseg", "spider", "pranet", "nnunet", "all"]
Split = Literal["train", "val", "test"]

out_console = Console(markup=False, highlight=False, soft_wrap=True)
error_console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
