"""How figures are written."""

from collections.abc import Iterable, Sequence


def figure(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def ratio(value: float | None) -> str:
    """Of two times."""
    if value is None:
        return ""
    return f"{value:.1f}×" if value >= 0.95 else f"{value:.2g}×"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def size(n_bytes: float | None) -> str:
    """Bytes, with decimal prefixes."""
    if n_bytes is None:
        return ""
    for unit in ("B", "kB", "MB"):
        if n_bytes < 999.5:
            return f"{figure(n_bytes)} {unit}"
        n_bytes /= 1000
    return f"{figure(n_bytes)} GB"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of Markdown."""
    return [f"| {' | '.join(header)} |", "|" + "---|" * len(header), *(f"| {' | '.join(row)} |" for row in rows)]
