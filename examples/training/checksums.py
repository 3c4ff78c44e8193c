"""SHA256SUMS: the checksums of a checkpoint's files, as sha256sum writes and checks them."""

from __future__ import annotations

import hashlib
import re
import reprlib
from pathlib import Path

from training.checkpoint_files import SUMS, files, read

LINE = re.compile(r"([0-9a-f]{64})  ([^/\n]+)\n")


def digest(file: Path) -> str:
    """SHA-256 of a file; 15 MB take 10 ms."""
    result = hashlib.sha256()
    with file.open("rb", buffering=0) as content:
        while part := content.read(1 << 20):
            result.update(part)
    return result.hexdigest()


def write_sums(folder: Path) -> None:
    (folder / SUMS).write_text("".join(f"{digest(file)}  {file.name}\n" for file in files(folder)))


def read_sums(folder: Path) -> list[tuple[str, str]]:
    """The checksums, with the files' names."""
    listed = []
    for line in read(folder / SUMS, Path.read_bytes).decode(errors="replace").splitlines(keepends=True):
        match = LINE.fullmatch(line)
        if not match:
            raise ValueError(f"{SUMS}: {reprlib.repr(line)} is no line of a checksum, two spaces and a name")
        listed.append(match.groups())
    return listed


def verify(folder: Path) -> None:
    """Raise ValueError, which names what is damaged, unless a checkpoint's files are those that were saved."""
    listed = read_sums(folder)
    wrong = [f"{file.name}: {SUMS} does not list it" for file in files(folder) if file.name not in (name for _, name in listed)]
    for expected, name in listed:
        try:
            found, size = read(folder / name, lambda file: (digest(file), file.stat().st_size))
        except ValueError as error:
            wrong.append(str(error))
        else:
            if found != expected:
                wrong.append(f"{name}: its {size:,} bytes are not those of its checksum in {SUMS}")
    if wrong:
        raise ValueError("; ".join(wrong))
