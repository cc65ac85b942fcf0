"""`python -m tests.golden`: record anew what the package computes, or compare with what a revision computes on this machine.

python -m tests.golden against REVISION     # its own recorder runs in a worktree of it; every difference is named
python -m tests.golden write                # golden.json anew, after a change that is meant
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), *(str(HERE.parent / folder) for folder in ("helpers", "golden"))]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("against", help="name what differs from a revision, to the bit").add_argument("revision")
    verbs.add_parser("write", help="write golden.json")
    verbs.add_parser("record", help="write the record of this working tree to a file").add_argument("file", type=Path)
    options = parser.parse_args()
    if options.verb == "against":
        return against(options.revision)
    from comparing import GOLDEN, as_file
    from recording import record

    with tempfile.TemporaryDirectory() as folder:
        content = as_file(record(Path(folder) / "record"))
    (GOLDEN if options.verb == "write" else options.file).write_text(content, encoding="utf-8")
    return 0


def against(revision: str) -> int:
    """Record a revision and this working tree, one after the other, with the libraries that are here; 1 if anything differs."""
    from comparing import differences, read_record

    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary) / "tree"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", tree, revision], check=True)
        try:
            files = {place: Path(temporary) / f"{name}.json" for name, place in (("before", tree), ("after", ROOT))}
            for place, file in files.items():
                print(f"recording {'this working tree' if place == ROOT else revision}", flush=True)
                environment = {**os.environ, "PYTHONPATH": str(place / "src")}
                words = [sys.executable, "-m", "tests.golden", "record", str(file)]
                done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True)
                if done.returncode:
                    print(done.stderr[-3000:], file=sys.stderr)
                    return done.returncode
            before, after = (read_record(file)[1] for file in files.values())
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)
    found = differences(before, after)
    print("\n".join([*found, f"{len(found)} of {len(before)} entries differ from {revision}"]))
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
