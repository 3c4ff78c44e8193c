"""docs/reference/command.md says what its parsers say, and shows what it prints; `python tests/test_command_page.py` renews it."""

import argparse
import pathlib
import re
import subprocess
import sys

import pytest

from fusedrms.kernels import lang

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs/reference/command.md"
BLOCK = re.compile(r"<!-- options: (\w+) -->\n\n(.*?)\n(?=\n)", re.S)
SHOWN = re.compile(r"<!-- output -->\n\n```text\n\$ fusedrms (.*?)\n(.*?)```", re.S)


def table(parser: argparse.ArgumentParser) -> str:
    """The arguments of a command."""
    rows = ["| argument | meaning |", "|---|---|"]
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else None
        metavar = "" if action.nargs == 0 else f" {action.metavar or choices or action.dest.upper()}"
        values = metavar * (action.nargs if isinstance(action.nargs, int) and action.nargs else 1)
        names = ", ".join(f"`{name}{values}`" for name in action.option_strings) or f"`{metavar.strip()} ...`"
        said = parser._get_formatter()._expand_help(action) if action.help else ""
        rows.append(f"| {names} | {' '.join(said.split())} |")
    return "\n".join(rows)


def tables() -> dict[str, str]:
    """By command; of an interpreter that no test has told of other devices."""
    from bench.__main__ import parse
    from fusedrms.tools.cli import make_parser

    parsers = next(action.choices for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {name: table(parser) for name, parser in {**parsers, "bench": parse([], "fusedrms bench")[0]}.items()}


def renewed() -> str:
    made = tables()
    return BLOCK.sub(lambda block: f"<!-- options: {block[1]} -->\n\n{made[block[1]]}\n", PAGE.read_text())


def test_options():
    command = [sys.executable, __file__, "--print"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert found == PAGE.read_text(), "renew it: python tests/test_command_page.py"
    assert {name for name, _ in BLOCK.findall(found)} == tables().keys()


@pytest.mark.skipif(lang.interpreted(), reason="the commands are about compiled kernels")
@pytest.mark.parametrize(("arguments", "shown"), SHOWN.findall(PAGE.read_text()), ids=lambda value: value.partition(" ")[0])
def test_output(arguments, shown, capsys):
    """Each line of a block is one of the output; those that are left out are not."""
    from fusedrms.tools.cli import main

    assert main(arguments.split()) == 0
    printed = {line.rstrip() for line in capsys.readouterr().out.split("\n")}
    lines = [line.rstrip() for line in shown.split("\n") if line.strip() != "…"]
    assert any(lines)
    assert [line for line in lines if line not in printed] == []


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    if "--print" in sys.argv:
        sys.stdout.reconfigure(encoding="utf-8")
        print(renewed(), end="")
    else:
        PAGE.write_text(renewed())
