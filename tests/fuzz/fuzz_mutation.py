"""Inputs from whole files and a number: bits, bytes and parts of any file; values, keys and cells of those that have them."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import yaml

HEADER = 400
"""Bytes at the beginning in which half of the damage to bytes is done."""
CANARY = "canary"
"""In the name of files that no input may make a reader open."""
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 10**6, 10**12, 2**63, 10**400, 1e308, float("nan"), float("inf"), "", "x", "\x00", "ä\u202e漢", "a" * 5000,
    f"../{CANARY}.png", f"../../{CANARY}.png", f"/{CANARY}.png", f"..\\{CANARY}.png", f"C:\\{CANARY}.png", f"file:///{CANARY}",
    f"\\\\host\\{CANARY}", "/dev/zero", "<script>", "{{7*7}}", "\x1b]0;x\x07", "%s%n", "null", "1e999", "-0", "0x10", [], {}, [[]], [None],
    [1], [[1, 2]], [["a"]], {"a": 1}, {"": {}}, [[10**400] * 6], ["x"] * 300,
)  # fmt: skip
YAML_PIECES = (
    "&a ", "*a", "<<: *a\n", "!!python/object/apply:os.system [x]\n", "!!binary x\n", "!!int x\n", "!!timestamp 2001-99-99\n",
    "? ", "- " * 50,
    "[" * 60, "{" * 60, "---\n", "...\n", "%YAML 9.9\n", "\t", "|\n", ">\n", "2001-99-99", "1:1:1:1", ".inf", "0b1", "0o8", "~",
    "\x85", "\x00",
    "&a [*a]", "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "tasks: ", "!<tag:yaml.org,2002:set> {a}\n",
)  # fmt: skip


def mutated(whole: bytes, kind: str, number: int) -> bytes:
    """Input `number` of a file of this kind; the same each time."""
    rng = random.Random(number)
    structured = {"json": odd_json, "yaml": odd_yaml, "csv": odd_csv, "zip": odd_zip}.get(kind)
    content = whole
    if structured is not None and rng.random() < 0.7:
        content = structured(content, rng)
        if rng.random() < 0.6:
            return content
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = damaged(content, rng)
    return with_sums(content) if kind == "png" and rng.random() < 0.8 else content


def with_sums(png: bytes) -> bytes:
    """A PNG's chunks with checksums that are right, so that what is in them is read."""
    place, parts = 8, [png[:8]]
    while place + 12 <= len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        body = png[place + 4 : place + 8 + length]
        if len(body) < length + 4:
            break
        parts += [png[place : place + 4], body, zlib.crc32(body).to_bytes(4, "big")]
        place += 12 + length
    return b"".join([*parts, png[place:]])


def damaged(whole: bytes, rng: random.Random) -> bytes:
    """A file cut short, with bits flipped, a part overwritten, repeated, taken out, or a number replaced by an extreme one."""
    content = bytearray(whole or b"\0")
    end = min(HEADER if rng.random() < 0.5 else len(content), len(content))
    kind, start = rng.randrange(7), rng.randrange(end)
    if kind == 0:
        return bytes(content[: rng.randrange(len(content))])
    if kind in (1, 2):
        for _ in range(rng.choice((1, 3, 10, 40))):
            content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    elif kind == 3:
        length = rng.choice((1, 2, 4, 8, 64))
        content[start : start + length] = bytes([rng.choice((0, 0x7F, 0x80, 0xFF))]) * length
    elif kind == 4:
        content[start:start] = content[start : start + rng.randrange(1, 200)] * rng.choice((1, 1, 50))
    elif kind == 5:
        del content[start : start + rng.randrange(1, 200)]
    else:
        size = rng.choice((1, 2, 4, 8))
        value = rng.choice((0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1, rng.getrandbits(8 * size)))
        content[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return bytes(content)


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where something could be replaced."""
    yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def odd_value(content: Any, rng: random.Random) -> Any:
    """With one or a few values replaced, keys taken out, or parts put where others were."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        spots = list(places(content))
        path = rng.choice(spots)
        if not path:
            if rng.random() < 0.1:
                return rng.choice(ODD)
            continue
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        what = rng.random()
        if what < 0.6:
            inner[path[-1]] = copy.deepcopy(rng.choice(ODD))
        elif what < 0.75:
            del inner[path[-1]]
        elif isinstance(inner, dict) and what < 0.9:
            inner[str(rng.choice(ODD))[:50]] = inner[path[-1]]
        else:
            other = content
            for key in rng.choice(spots):
                other = (
                    other[key] if (isinstance(other, dict) and key in other) or (isinstance(other, list) and key < len(other)) else other
                )
            inner[path[-1]] = copy.deepcopy(other)
    return content


def odd_json(whole: bytes, rng: random.Random) -> bytes:
    text = json.dumps(odd_value(json.loads(whole), rng))
    what = rng.random()
    if what < 0.05:
        return b"[" * rng.choice((31, 33, 1000, 100_000)) + text.encode()
    if what < 0.1 and text.startswith("{"):
        return text.replace("{", text.split(",")[0] + ",", 1).encode()  # a key twice
    return text.encode()


def odd_yaml(whole: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        content = odd_value(yaml.safe_load(whole), rng)
        try:
            return yaml.safe_dump(content, default_flow_style=rng.choice((None, True, False))).encode("utf-8", "surrogatepass")
        except (ValueError, RecursionError):  # an integer of more digits than Python writes
            return whole
    content = bytearray(whole)
    for _ in range(rng.choice((1, 2, 4))):
        place = rng.randrange(len(content) + 1)
        content[place:place] = rng.choice(YAML_PIECES).encode()
    return bytes(content)


def odd_csv(whole: bytes, rng: random.Random) -> bytes:
    rows = [line.split(",") for line in whole.decode().splitlines()]
    for _ in range(rng.choice((1, 1, 3))):
        row = rng.choice(rows)
        what = rng.random()
        if what < 0.6 and row:
            row[rng.randrange(len(row))] = str(rng.choice(ODD))
        elif what < 0.7:
            row.append(str(rng.choice(ODD)))
        elif what < 0.8 and row:
            row.pop()
        elif what < 0.9:
            rows.insert(rng.randrange(len(rows)), list(row))
        else:
            row[:] = ['"', *row]
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


def odd_zip(whole: bytes, rng: random.Random) -> bytes:
    """Members with names, links and sizes that nobody should believe."""
    names = (
        f"../{CANARY}.txt",
        f"/{CANARY}.txt",
        f"a/../../{CANARY}.txt",
        f"..\\{CANARY}.txt",
        "C:/x",
        "",
        "a",
        "a/",
        "con",
        ".",
        "a" * 300,
        "\u202e.png",
    )
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            content = old.read(info)
            if rng.random() < 0.4:
                info = zipfile.ZipInfo(rng.choice(names))
                info.external_attr = rng.choice((0, 0o120777 << 16, 0o060666 << 16, 0o040777 << 16))
                content = rng.choice((content, b"", f"../{CANARY}.txt".encode(), bytes(rng.choice((10, 20_000_000))), whole))
            elif rng.random() < 0.1:
                info.filename += rng.choice((".zip", ".tar.gz", ".rar"))
            new.writestr(info, content)
    return out.getvalue()
