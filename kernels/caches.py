"""The compilers' caches on disk: whatever their state, a kernel is compiled. What is wrong with one is said once a process."""

import contextlib
import errno
import functools
import hashlib
import os
import pathlib
import pickle
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, NullCache
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature

TRUST = "FUSEDRMS_TRUST_CACHE"  # an environment variable: 1 if Numba's cache may be one that others can write
NUMBA, TRITON = "Numba", "Triton"
SOURCE = pathlib.Path(__file__).resolve().parent

NO_KERNELS = "caches.py", "devices.py"  # of this package

unusable: dict[str, str] = {}  # by compiler: why it compiles in each process, and what to do
damaged: dict[str, str] = {}  # by compiler: what was found that has been written anew


@functools.cache
def source_hash(folder: pathlib.Path = SOURCE) -> str:
    """Of all that is compiled of a folder, by default of kernels: what was compiled or tuned with other sources does not count."""
    files = sorted(path for path in folder.rglob("*.py") if path.name not in NO_KERNELS)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _say(found: dict[str, str], compiler: str, message: str) -> None:
    if compiler not in found:
        found[compiler] = message
        warnings.warn(message, stacklevel=2)


def _say_unusable(compiler: str, folder: str | None, error: Exception, remedy: str = "Free or repair it") -> None:
    where = f" in {folder}" if folder else ""
    why = f"{compiler}'s cache{where} cannot be used, so each process compiles for seconds: {type(error).__name__}: {error}"
    _say(unusable, compiler, f"{why}. {remedy}, or name another folder in {compiler.upper()}_CACHE_DIR")


def _say_damaged(compiler: str, path: str | None, error: Exception) -> None:
    what = f"{type(error).__name__}: {error}"
    _say(damaged, compiler, f"{compiler}'s cache is damaged, and what was in it is compiled again and written anew: {path}: {what}")


# who can write


class Untrusted(Exception):
    """Others can write what would be run."""


def _trusted(source: os.stat_result) -> set[int]:
    """Users who run code here anyway: this one, root, the owner of this package's source."""
    return {os.geteuid(), 0, source.st_uid}


def _is_one_user(gid: int, trusted: set[int]) -> bool:
    """Whether a group is the private one of a trusted user, whose name it has, as umask 002 takes for granted."""
    import grp
    import pwd

    try:
        group = grp.getgrgid(gid)
        return pwd.getpwnam(group.gr_name).pw_uid in trusted and set(group.gr_mem) <= {group.gr_name}
    except KeyError:
        return False


def _others_can_write(status: os.stat_result, source: os.stat_result) -> bool:
    """Whether somebody can who cannot write this package's source as well."""
    if status.st_mode & ~source.st_mode & stat.S_IWOTH:
        return True
    if not status.st_mode & stat.S_IWGRP or (source.st_mode & stat.S_IWGRP and status.st_gid == source.st_gid):
        return False
    return not _is_one_user(status.st_gid, _trusted(source))


def check_writers(path: str) -> None:
    """Of a file or folder, if it is there: what lies in it is unpickled, which can run anything.

    Raises:
        Untrusted: it belongs to another user, or others can write it, or a folder on the way to it that is not sticky.
    """
    if not hasattr(os, "geteuid") or os.environ.get(TRUST) == "1" or not os.path.exists(path):  # Windows has no such modes
        return
    real, source = pathlib.Path(path).resolve(), SOURCE.stat()
    owner = real.stat().st_uid
    if owner not in _trusted(source):
        raise Untrusted(f"{real} belongs to user {owner}, who could run code through it")
    for place in (real, *real.parents):
        if place in (SOURCE, *SOURCE.parents):  # who can write there can change the source
            break
        status = place.stat()
        if _others_can_write(status, source) and (place == real or not status.st_mode & stat.S_ISVTX):
            raise Untrusted(f"others can write to {place}, mode {stat.S_IMODE(status.st_mode):o}, and could run code through it")


# Numba


def _check(path: str) -> None:
    """Of a file of a cache, if it is there: that nobody else can write it, and that reading does not wait, as of a pipe.

    Raises:
        Untrusted: others can write it.
        OSError: it is not a regular file.
    """
    check_writers(path)
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileExistsError(errno.EEXIST, "it is not a regular file", path)


class _Code(CompileResultCacheImpl):
    """Machine code with its checksum: what a crash has left half written is not run."""

    def get_filename_base(self, fullname: str, abiflags: str) -> str:
        return f"{super().get_filename_base(fullname, abiflags)}.sha256"

    def reduce(self, cres: Any) -> tuple[bytes, bytes]:
        code = dumps(super().reduce(cres))
        return hashlib.sha256(code).digest(), code

    def rebuild(self, target_context: Any, payload: tuple[bytes, bytes]) -> Any:
        checksum, code = payload
        if hashlib.sha256(code).digest() != checksum:
            raise ValueError("the checksum of the machine code differs")
        return super().rebuild(target_context, pickle.loads(code))


class _Files(IndexDataCacheFile):
    """Of a function: what others can write is not read, and a damaged index counts as none."""

    def _load_index(self) -> dict:
        check_writers(self._cache_path)
        _check(self._index_path)
        try:
            index = super()._load_index()
            if not isinstance(index, dict) or not all(isinstance(name, str) and os.path.basename(name) == name for name in index.values()):
                raise ValueError("it does not say which file has which machine code")
            return index
        except OSError:
            raise
        except Exception as error:  # of damaged data pickle raises almost any
            _say_damaged(NUMBA, self._index_path, error)
            return {}

    def _load_data(self, name: str) -> Any:
        _check(self._data_path(name))
        return super()._load_data(name)

    def _save_data(self, name: str, data: Any) -> None:
        _check(self._data_path(name))  # what was refused stays for its reader to judge
        super()._save_data(name, data)


class _Kept(FunctionCache):
    _impl_class = _Code

    def __init__(self, function: Callable):
        super().__init__(function)
        folder = pathlib.Path(function.__code__.co_filename).resolve().parent
        # Numba would look at the function's file alone, and not at what is compiled into it from others
        stamp = self._impl.locator.get_source_stamp(), source_hash(), source_hash(folder)
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, stamp)


class NumbaCache(NullCache):
    """Where a function's machine code is kept between processes, if it can be; nothing is touched before the first compilation."""

    def __init__(self, function: Callable):
        self._function = function

    @functools.cached_property
    def _kept(self) -> _Kept:
        try:
            return _Kept(self._function)
        except RuntimeError as error:  # Numba has tried the folders in turn
            raise OSError(f"neither {SOURCE / '__pycache__'} nor the user's cache directory can be written") from error

    @property
    def cache_path(self) -> str | None:
        with contextlib.suppress(OSError):
            return self._kept.cache_path
        return None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The machine code, or None."""
        try:
            found = self._kept.load_overload(sig, target_context)
            if found is None or found.signature.args == tuple(normalize_signature(sig)[0]):
                return found
            raise ValueError("it is machine code for other types, perhaps of two processes that wrote at once")
        except (OSError, Untrusted) as error:
            self._say_unusable(error)
        except Exception as error:
            _say_damaged(NUMBA, self.cache_path, error)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """For later processes."""
        try:
            self._kept.save_overload(sig, data)
        except Exception as error:
            self._say_unusable(error)

    def _say_unusable(self, error: Exception) -> None:
        own = f"Make it yours alone, or set {TRUST}=1 if you trust all who can write there"
        _say_unusable(NUMBA, self.cache_path, error, *([own] if isinstance(error, Untrusted) else []))


def cached_njit(**options):
    """numba.njit with a cache on disk that stops no step."""

    def decorate(function):
        dispatcher = numba.njit(**options)(function)
        dispatcher._cache = NumbaCache(function)  # in place of what cache=True sets
        return dispatcher

    return decorate


# Triton


@contextlib.contextmanager
def _anew() -> Iterator[None]:
    """Triton writes over what its cache holds."""
    from triton import knobs

    with knobs.compilation.scope():
        knobs.compilation.always_compile = True
        yield


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Triton's cache is a new folder, which nobody needs after the kernel has been loaded."""
    from triton import knobs
    from triton.runtime.cache import FileCacheManager

    with tempfile.TemporaryDirectory(prefix="fusedrms-", ignore_cleanup_errors=True) as folder, knobs.cache.scope():
        knobs.cache.dir, knobs.cache.manager_class = folder, FileCacheManager
        yield


def _forget_unloaded(kernel: Any) -> None:
    """What was compiled and cannot be loaded; others are in use, by CUDA graphs as well."""
    for compiled, *_ in kernel.device_caches.values():
        for key in [key for key, each in compiled.items() if getattr(each, "module", None) is None]:
            del compiled[key]


def loaded(kernel: Any, load: Callable[[], Any]) -> Any:
    """What load() returns, which has Triton compile a kernel but not launch it: once more, if Triton's cache may be in the way."""
    from triton import knobs
    from triton.errors import TritonError

    try:
        return load()
    except TritonError:  # about the kernel
        raise
    except Exception as error:
        for settings, say in ((_anew, _say_damaged), (_elsewhere, _say_unusable)):
            _forget_unloaded(kernel)
            try:
                with settings():
                    result = load()
            except Exception:  # what failed first says more
                continue
            say(TRITON, knobs.cache.dir, error)
            return result
        raise
