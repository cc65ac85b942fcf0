"""What is put before the blocks of a trunk: task-conditioned adapters and their gate, bottlenecks, LoRA."""
