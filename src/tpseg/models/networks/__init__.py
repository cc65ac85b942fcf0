"""Other systems in the same trainer, a file each."""
