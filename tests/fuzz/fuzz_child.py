"""A process that reads fuzzed files one after the other, under a limit of memory, watched for what no reader may do.

Usage: python fuzz_child.py TARGET FOLDER FIRST LAST [guided SECONDS]. FOLDER holds seeds/ and around/, its scratch/ is written to.
Plain, input n is made from the seeds and n alone. Guided, atheris (libFuzzer) chooses inputs by the code that they reach.
A line to stdout before each input, `start n`, and after, `end n OUTCOME PEAK SECONDS` (memory in KiB, seconds of the processor,
those of the decoders' process included);
guided, `end` lines alone.
"""

# ruff: noqa: E402, T201

from __future__ import annotations

import os
import resource
import shutil
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(folder) for folder in (HERE, HERE.parent / "helpers")]
if "guided" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["tpseg", "yaml", "nibabel", "pydicom", "PIL", "zipfile", "tarfile", "rarfile"]):
        import fuzz_targets
else:
    import fuzz_targets

import random

from fuzz_mutation import CANARY, mutated
from fuzz_running import processor_time

from tpseg.core.errors import LONGEST, TPSegError
from tpseg.imaging.reading.decoding import decoders

MEMORY = 2 << 30
"""Bytes that inputs may take beyond what the process has when it begins."""
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "urllib.Request", "pickle.find_class")
"""Events of Python's audit hook that no reader may cause."""


class Watch:
    """Sees files opened or removed outside the scratch folder, processes started, connections made."""

    def __init__(self, scratch: Path, around: Path, own_words: bool) -> None:
        self.own_words = own_words
        self.allowed = (str(scratch) + os.sep, str(around) + os.sep)
        self.escapes: list[str] = []
        self.active = False
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple) -> None:
        if not self.active:
            return
        if event == "open":
            path, mode, flags = arguments
            name = os.fsdecode(path) if isinstance(path, (str, bytes)) else ""
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            outside = name and name != os.devnull and not os.path.abspath(name).startswith(self.allowed)
            if (writes and outside) or (outside and not self.own_words and CANARY in os.path.basename(name)):
                self.escapes.append(f"opened {name!r} {mode}")
        elif event in ("os.remove", "os.rename", "os.mkdir", "os.symlink", "os.link", "os.chmod", "shutil.rmtree"):
            name = os.fsdecode(arguments[0])
            relative_to_folder = not os.path.isabs(name)  # rmtree names files within a folder that it holds open
            if not relative_to_folder and not (os.path.abspath(name) + os.sep).startswith(self.allowed):
                self.escapes.append(f"{event} {name!r}")
        elif event == "subprocess.Popen":
            if "tpseg.imaging.reading.decoder_process" not in [str(word) for word in arguments[1]]:
                self.escapes.append(f"started {arguments[1]!r}")
        elif event in FORBIDDEN:
            self.escapes.append(f"{event} {arguments!r}"[:300])


class Judge:
    """Reads a file and says how it went."""

    def __init__(self, name: str, folder: Path) -> None:
        self.target = fuzz_targets.TARGETS[name]
        self.scratch, self.around = folder / "scratch", folder / "around"
        self.watch = Watch(self.scratch, self.around, self.target.own_words)

    def outcome(self, path: Path) -> str:
        """'shown', 'refused', or what went wrong."""
        self.watch.escapes.clear()
        self.watch.active = True
        try:
            self.target.read(path, self.around)
            found = "shown"
        except TPSegError as error:
            found = "refused" if len(str(error)) <= LONGEST + 100 and "\n" not in str(error) else "not-a-sentence"
            if found != "refused":
                print(f"{path.name}: {str(error)[:2000]!r}", file=sys.stderr)
        except BaseException:
            found = "stack-trace"
            self.watch.active = False
            traceback.print_exc()
        finally:
            self.watch.active = False
        if self.watch.escapes:
            print(f"{path.name}: {self.watch.escapes}", file=sys.stderr)
            return "escape"
        return found


def status(process: str, key: str) -> int:
    """A number of /proc/PROCESS/status in KiB, 0 where there is none."""
    file = Path(f"/proc/{process}/status")
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines()) if file.exists() else {}
    return int(lines[key].split()[0]) if key in lines else 0


def peak() -> int:
    """Most memory that this process, or that of the decoders, has had."""
    decoder = decoders()._process
    own = status("self", "VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts in the latter what the parent had
    return max(own, status(str(decoder.pid), "VmHWM") if decoder else 0)


def used() -> float:
    """Seconds of the processor that this process and that of the decoders have used."""
    decoder = decoders()._process
    return time.process_time() + (processor_time(decoder.pid) if decoder else 0.0)


def suffixes(seed: Path) -> str:
    return "".join(seed.suffixes)


def plain(judge: Judge, target: str, seeds: list[Path], first: int, last: int) -> None:
    contents = [seed.read_bytes() for seed in seeds]
    for number in range(first, last):
        which = number % len(seeds)
        path = judge.scratch / f"{number}{suffixes(seeds[which])}"
        path.write_bytes(mutated(contents[which], judge.target.kind, number))
        print(f"start {number}", flush=True)
        began = used()
        found = judge.outcome(path)
        seconds = max(0.0, used() - began)  # a decoder that died has taken its seconds with it
        if found not in ("shown", "refused"):
            path.rename(judge.scratch.parent / "findings" / path.name)
        else:
            path.unlink()
        print(f"end {number} {found} {peak()} {seconds:.2f}", flush=True)
    print("done", flush=True)


def guided(judge: Judge, seeds: list[Path], seconds: int, first: int) -> None:
    """Each seed in its own suffix: the first byte of an input chooses it."""
    corpus = judge.scratch.parent / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_bytes(bytes([number]) + seed.read_bytes())
    count = first

    def run(data: bytes) -> None:
        nonlocal count
        if not data:
            return
        path = judge.scratch / f"g{os.getpid()}{suffixes(seeds[data[0] % len(seeds)])}"
        path.write_bytes(data[1:])
        began = used()
        found = judge.outcome(path)
        print(f"end {count} {found} {peak()} {max(0.0, used() - began):.2f}", flush=True)
        if found not in ("shown", "refused"):
            path.rename(judge.scratch.parent / "findings" / f"{count}{path.name}")
        count += 1

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        """Half by libFuzzer, half by what knows the format."""
        rng = random.Random(seed)
        if rng.random() < 0.5 or len(data) < 2:
            return atheris.Mutate(data, most)
        try:
            return (data[:1] + mutated(data[1:], judge.target.kind, seed))[:most]
        except Exception:  # what libFuzzer has made of it is no JSON any more
            return atheris.Mutate(data, most)

    longest = max(path.stat().st_size for path in seeds)
    options = [
        f"-max_total_time={seconds}",
        "-timeout=10",
        f"-max_len={2 * longest + 100}",
        "-rss_limit_mb=0",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    options += [f"-artifact_prefix={judge.scratch.parent / 'findings'}/", f"-seed={first + 1}"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], run, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> None:
    target, folder = sys.argv[1], Path(sys.argv[2]).resolve()
    judge = Judge(target, folder)
    if not any((folder / "seeds").iterdir()):
        judge.target.seeds(folder / "seeds")
        judge.target.around(folder / "around")
    seeds = sorted(path for path in (folder / "seeds").iterdir() if path.is_file())
    assert seeds, "there are no seeds"
    for seed in seeds:  # what readers import late is no input's doing
        copy = judge.scratch / seed.name
        shutil.copyfile(seed, copy)
        expected = "refused" if seed.name.startswith("refused") else "shown"
        assert judge.outcome(copy) == expected, f"{seed.name} cannot be started from: it is not {expected}"
        copy.unlink()
    if sys.platform == "linux":
        limit = 1024 * status("self", "VmSize") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print("ready", flush=True)
    if sys.argv[5:6] == ["guided"]:
        guided(judge, seeds, int(sys.argv[6]), int(sys.argv[3]))
    else:
        plain(judge, target, seeds, int(sys.argv[3]), int(sys.argv[4]))


if __name__ == "__main__":
    main()
