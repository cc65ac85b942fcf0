"""The hub is asked once and not for long; what was fetched before is used without it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

import huggingface_hub.constants
import pytest

from tpseg.checkpoints import hub
from tpseg.checkpoints.hub import NotFromHub, fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Api:
    """A hub that answers as told, or not at all."""

    answer: Exception | None = None
    silence: threading.Event | None = None
    """Until it is set, no answer comes."""
    answers: ClassVar[list[str]]
    """What came too late."""

    def model_info(self, name: str, timeout: float) -> None:
        if self.silence is not None:
            self.silence.wait(600)
            self.answers.append(name)
        if self.answer is not None:
            raise self.answer


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Api]:
    """The hub, with an empty cache of what was fetched before."""

    class This(Api):
        answers: ClassVar[list[str]] = []

    monkeypatch.setattr(hub, "HfApi", This)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return This


def fetched_before(cache: Path) -> Path:
    top = cache / "models--somebody--trunk"
    (top / "refs").mkdir(parents=True)
    (top / "refs" / "main").write_text(COMMIT)
    (top / "snapshots" / COMMIT).mkdir(parents=True)
    (top / "snapshots" / COMMIT / "model.safetensors").write_bytes(b"weights")
    return top / "snapshots" / COMMIT


@pytest.mark.parametrize("cached", [False, True])
def test_a_network_that_swallows_questions_costs_seconds(
    api: type[Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    """A wall that drops packets, a name server that is not there: the client alone would try for a minute."""
    monkeypatch.setattr(hub, "PATIENCE", 0.1)
    monkeypatch.setattr(api, "silence", threading.Event())
    place = fetched_before(tmp_path) if cached else None
    if cached:
        assert fetch("somebody/trunk") == place
    else:
        with pytest.raises(NotFromHub, match="asked for it: TimeoutError; nothing of it was fetched before"):
            fetch("somebody/trunk")
    assert not api.answers  # nobody waited for it
    assert api.silence is not None
    api.silence.set()


def test_without_a_network_nothing_is_tried_again(api: type[Api], monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[dict[str, object]] = []

    def download(name: str, **options: object) -> str:
        downloads.append(options)
        raise FileNotFoundError(name)

    monkeypatch.setattr(hub, "snapshot_download", download)
    monkeypatch.setattr(api, "answer", ConnectionError("Name or service not known"))
    with pytest.raises(NotFromHub, match="asked for it: ConnectionError"):
        fetch("somebody/trunk", ["*.json"])
    assert downloads == [{"allow_patterns": ["*.json"], "local_files_only": True}]
    monkeypatch.setattr(api, "answer", None)
    with pytest.raises(NotFromHub, match=r"^it has it, but fetching it ended with FileNotFoundError$"):
        fetch("somebody/trunk")


def test_with_one_it_is_fetched(api: type[Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", lambda name, allow_patterns, local_files_only: str(tmp_path / f"{local_files_only}"))
    assert fetch("somebody/trunk") == tmp_path / "False"
