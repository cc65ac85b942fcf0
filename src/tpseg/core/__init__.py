"""What every package may use: tasks, settings, errors, files, untrusted input, progress, memory, the look of figures."""
