"""Build sdist and wheel of what git tracks, check them, and put them into dist/: make dist.

dist/ is replaced as a whole, once all checks in this folder have passed; until then it holds what it held before.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from filelock import FileLock

from release_notes import addressed, version

ROOT = pathlib.Path(__file__).parents[2]
BUILD, DIST = ROOT / "build", ROOT / "dist"


def tracked() -> list[str]:
    """What git knows of, as far as it is there: neither what earlier builds left nor what is ignored."""
    command = ["git", "ls-files", "--cached", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or error
        raise SystemExit(f"make dist: it builds what git tracks, and there is no list of that: {said}".rstrip()) from None
    return [name for name in listed if name and os.path.lexists(ROOT / name)]


def stage(source: pathlib.Path) -> None:
    """The tracked files in a folder, README with links that hold on a package's page."""
    for file in tracked():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, source / file, follow_symlinks=False)
    changelog, readme = (source / "CHANGELOG.md").read_text(), source / "README.md"
    readme.write_text(addressed(readme.read_text(), changelog, version(source)))


def build(work: pathlib.Path) -> pathlib.Path:
    """The sdist of the tracked files, and the wheel of that sdist, in a folder of their own."""
    source, built = work / "source", work / "built"
    stage(source)
    command = [sys.executable, "-m", "build", "--outdir", built, source]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if ran.returncode:
        print(ran.stdout)
    ran.check_returncode()
    return built


def check(built: pathlib.Path) -> None:
    """Every test of this room, which finds the two files by the variable."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", pathlib.Path(__file__).parent]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "FUSEDRMS_DIST": str(built)}, check=True)


def publish(built: pathlib.Path) -> None:
    """A folder becomes dist/: at no time is half of one there."""
    if os.path.lexists(DIST):
        DIST.rename(built.with_name("old"))
    built.rename(DIST)


def main() -> int:
    BUILD.mkdir(exist_ok=True)
    with FileLock(BUILD / "dist.lock"):
        for left in BUILD.glob("dist-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)  # a process that it started may still write there: the next run removes the rest
        work = pathlib.Path(tempfile.mkdtemp(prefix="dist-", dir=BUILD))
        try:
            built = build(work)
            check(built)
            publish(built)
        except subprocess.CalledProcessError as error:
            print(f"make dist: failed with status {error.returncode}; dist/ is as it was", file=sys.stderr)
            return 1
        finally:
            shutil.rmtree(work)
    print("\n".join(str(path.relative_to(ROOT)) for path in sorted(DIST.iterdir())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
