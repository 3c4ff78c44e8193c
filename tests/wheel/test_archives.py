"""What is in the sdist and in the wheel."""

import os
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest

from build_dist import ROOT, stage, tracked
from fusedrms.version import __version__

FOLDERS = {"fusedrms/": "fusedrms/", "kernels/": "fusedrms/kernels/"}  # of the checkout, and where a wheel has them
# files of the checkout that only the sdist has, and what setuptools writes there
BESIDE = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "README.md", "SECURITY.md", "constraints.txt", "pyproject.toml"}
WRITTEN = ("PKG-INFO", "setup.cfg", "fusedrms.egg-info/")
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"}


def of_wheel(path: pathlib.Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == len(set(archive.namelist()))
        return {name: archive.read(name) for name in archive.namelist()}


def of_sdist(path: pathlib.Path) -> dict[str, bytes]:
    """Regular files; a link would be none once it is unpacked elsewhere."""
    with tarfile.open(path) as archive:
        files = [member for member in archive.getmembers() if not member.isdir()]
        assert all(member.isfile() for member in files)
        top = f"fusedrms-{__version__}/"
        assert all(member.name.startswith(top) for member in files)
        return {member.name.removeprefix(top): archive.extractfile(member).read() for member in files}


def package() -> list[str]:
    """The checkout's files that make the package; fusedrms/kernels is a link to kernels/."""
    return [name for name in tracked() if name.startswith(tuple(FOLDERS)) and not (ROOT / name).is_symlink()]


def in_wheel(name: str) -> str:
    return next(target + name.removeprefix(folder) for folder, target in FOLDERS.items() if name.startswith(folder))


def test_wheel_has_the_package_and_nothing_else(wheel):
    found = of_wheel(wheel)
    expected = {in_wheel(name): name for name in package()} | {f"fusedrms-{__version__}.dist-info/{name}": None for name in METADATA}
    assert found.keys() == expected.keys()
    assert {"fusedrms/py.typed", "fusedrms/kernels/rules.py", "fusedrms/tools/versions.json"} <= found.keys()
    assert all(found[name] == (ROOT / source).read_bytes() for name, source in expected.items() if source)
    assert b"Apache License" in found[f"fusedrms-{__version__}.dist-info/licenses/LICENSE"]


def test_wheel_is_for_every_python_and_system(wheel):
    assert wheel.name == f"fusedrms-{__version__}-py3-none-any.whl"
    found = of_wheel(wheel)[f"fusedrms-{__version__}.dist-info/WHEEL"].decode()
    assert "Root-Is-Purelib: true" in found
    assert re.findall(r"^Tag: (.*)$", found, re.M) == ["py3-none-any"]
    assert {pathlib.PurePath(name).suffix for name in of_wheel(wheel) if name.startswith("fusedrms/")} == {".py", ".json", ".typed"}


def test_sdist_has_what_the_package_is_built_of_and_nothing_else(sdist):
    found = {name: content for name, content in of_sdist(sdist).items() if not name.startswith(WRITTEN)}
    assert found.keys() == {*package(), *BESIDE}
    assert [name for name, content in found.items() if content != (ROOT / name).read_bytes()] == ["README.md"]


def test_checkout_builds_the_same_wheel(wheel, tmp_path):
    """The wheel in dist/ was built of the sdist."""
    stage(tmp_path / "source")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, tmp_path / "source"]
    subprocess.run(command, check=True, capture_output=True)
    assert of_wheel(tmp_path / wheel.name) == of_wheel(wheel)


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_nothing_says_where_it_was_built(kind, request):
    path = request.getfixturevalue(kind)
    found = of_wheel(path) if kind == "wheel" else of_sdist(path)
    places = [str(ROOT), str(path.parent), sys.prefix, *([home] if (home := os.path.expanduser("~/")) != "/" else [])]
    assert not [(name, place) for name, content in found.items() for place in places if place.encode() in content]


def test_twine_takes_both(wheel, sdist):
    ran = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("PASSED") == 2


def test_check_wheel_contents(wheel):
    ran = subprocess.run([sys.executable, "-m", "check_wheel_contents", wheel], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_metadata(wheel):
    text = of_wheel(wheel)[f"fusedrms-{__version__}.dist-info/METADATA"].decode()
    fields = text.partition("\n\n")[0]
    assert f"\nVersion: {__version__}\n" in fields
    assert "\nLicense-Expression: Apache-2.0\n" in fields
    assert "\nClassifier: Typing :: Typed" in fields
    urls = dict(re.findall(r"^Project-URL: (.*?), (.*)$", fields, re.M))
    assert set(urls) == {"Homepage", "Documentation", "Repository", "Issues", "Changelog"}
    assert all(url.startswith("https://github.com/fusedrms/fusedrms") for url in urls.values())


def test_links_of_the_description_hold_on_a_package_index(wheel):
    text = of_wheel(wheel)[f"fusedrms-{__version__}.dist-info/METADATA"].decode()
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert f"https://github.com/fusedrms/fusedrms/blob/v{__version__}/docs/quickstart.md" in links
    assert f"https://github.com/fusedrms/fusedrms/raw/v{__version__}/bench/results/cpu-AMD_EPYC/beside_torch.png" in links
    assert all(link.startswith("https://") for link in links)
