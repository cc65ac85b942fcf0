"""What tpseg costs in time and memory beside the released code's way of working: `python -m benchmarks`."""
