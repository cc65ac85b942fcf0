"""Names that look like those of patients or cases: what a user who gave no groups should be told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tpseg.core.errors import few

BEGINNINGS = ((r"\D*\d+", r"\D"), (r"\D*\d+\D+\d+", r"\D"), (".+", "/"))
"""What a name may begin with that is the patient, and what follows it: `p01_3`, `study2_p01_3`, `p01/slice3`."""
LEAST_GROUPS = 3
"""Two are as likely two classes or two parts."""
MOST_IN_ONE = 0.5
"""Share of the names that one group may have: a patient does not have most of the images, a prefix does."""


def suggest_groups(names: Sequence[str]) -> str:
    """A sentence that names the expression for `--group` under which names fall into groups like a patient's; '' if none does.

    names: what the expression is searched in, one for each image. Nearly all must match, most of them share their group.
    """
    for patient, after in BEGINNINGS:
        pattern = f"^({patient}){after}"
        matches = [re.search(pattern, name) for name in names]
        sizes = Counter(match[1] for match in matches if match)
        together = sum(size for size in sizes.values() if size > 1)
        if (
            len(sizes) >= LEAST_GROUPS
            and sizes.total() >= 0.9 * len(names)
            and together >= 0.5 * len(names)
            and max(sizes.values()) <= MOST_IN_ONE * len(names)
            and all(any(map(str.isdigit, group)) for group in sizes)
        ):
            pattern = pattern if sizes.total() == len(names) else f"^({patient}(?={after})|.+)"  # the others each by itself
            return (
                f"no groups, though names look like those of patients or cases: {len(names)} images of {len(sizes)} "
                f"({few(sorted(sizes), 3)}); those of one may come into train and test: if names mean that, give --group '{pattern}'"
            )
    return ""
