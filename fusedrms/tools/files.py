"""Files that commands write: whole or not at all, and never into a pipe, which would wait for a reader."""

import argparse
import contextlib
import errno
import glob
import os
import pathlib
import tempfile


def place(text: str) -> pathlib.Path:
    """The type of an argument that names a file or a directory."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} names no place: name a file or a directory, or leave the option out")
    return pathlib.Path(text)


def check_file(path: pathlib.Path) -> None:
    """Raise OSError where a path is something else than a file, or than nothing."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "it is not a regular file", str(path))


def check_folder(path: pathlib.Path) -> None:
    """Raise OSError where a path is something else than a directory that can be entered, or than nothing."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(f"{path}/.")


def leftovers(path: pathlib.Path) -> list[pathlib.Path]:
    """What write() has not finished of a file: of a process that was killed, unless one is writing it."""
    return list(path.parent.glob(glob.escape(f".{path.name}.") + "*.tmp"))


def write(path: pathlib.Path, content: str | bytes) -> None:
    """Replace a file in one go, in a directory that is made if need be.

    Raises:
        OSError: that cannot be, by the file's name; it is as before.
    """
    check_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            os.chmod(name, 0o644)  # mkstemp's is 0o600
            os.replace(name, path)
        except BaseException:
            pathlib.Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
