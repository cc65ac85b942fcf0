"""Whether data are sound, and what they look like: check, statistics, near-duplicates, contact sheet."""
