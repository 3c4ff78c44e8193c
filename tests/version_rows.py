"""Which versions `make test-versions` tests with: an environment for each row, oldest first.

What each row was found to have, and what came of it, is in fusedrms/tools/versions.json.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """Packages that a row does not pin are resolved: to the newest, or in the row `oldest` to the oldest that pyproject.toml admits."""

    python: str
    name: str
    pins: dict[str, str]
    compiled: bool = False  # whether all kernels are compiled and measured, which takes minutes, or those of one rule

    @property
    def session(self) -> str:
        return f"py{self.python}-{self.name}"


def pinned(python: str, versions: tuple[str, str, str, str], compiled: bool = False) -> Row:
    """versions: of torch, of the Triton that this torch asks for, of Numba and of NumPy."""
    return Row(python, f"torch{versions[0]}", dict(zip(("torch", "triton", "numba", "numpy"), versions, strict=True)), compiled)


OLDEST, NEWEST = "oldest", "newest"
ROWS = (
    Row("3.10", OLDEST, {}, compiled=True),
    pinned("3.11", ("2.10.0", "3.6.0", "0.62.1", "2.2.6")),
    pinned("3.12", ("2.11.0", "3.6.0", "0.65.1", "2.4.6"), compiled=True),
    pinned("3.12", ("2.12.0", "3.7.0", "0.67.0", "2.5.5")),
    pinned("3.11", ("2.13.0", "3.7.1", "0.68.1", "2.4.6"), compiled=True),  # constraints.txt
    pinned("3.13", ("2.14.1", "3.8.0", "0.68.1", "2.5.5")),
    pinned("3.13", ("2.15.0", "3.9.0", "0.68.1", "2.5.5"), compiled=True),
    Row("3.14", NEWEST, {}),
)
