"""The command fusedrms."""

import argparse
import io
import sys
from collections.abc import Callable
from typing import NamedTuple

from rich.console import Console

from ..version import __version__
from . import bench, compile, doctor, inspect, memory, presets, printing, tune
from .errors import UserError


class Command(NamedTuple):
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Console], int]
    help: str
    example: str


COMMANDS = {
    "doctor": Command(
        doctor.add_arguments,
        doctor.run,
        "check the installation: versions, devices, tuned configurations, and a short test of each device",
        "fusedrms doctor --json",
    ),
    "tune": Command(
        tune.add_arguments,
        tune.run,
        "find the fastest block and chunk sizes of this device, and save them for later runs",
        "fusedrms tune --device cpu --rules rmsprop --dtypes float32,bfloat16+split+8bit --budget 60",
    ),
    "inspect": Command(
        inspect.add_arguments,
        inspect.run,
        "compile the kernels for any GPU, without one: registers, spills, instructions, and what limits the speed",
        "fusedrms inspect --target sm_90,gfx942 --rule rmsprop --asm /tmp/asm",
    ),
    "memory": Command(
        memory.add_arguments,
        memory.run,
        "calculate the GPU memory that a model takes in each precision mode and with other optimizers, and what fits",
        "fusedrms memory --parameters 70e9 --gpus 8 --gpu h200 --output memory.png",
    ),
    "bench": Command(
        bench.add_arguments,
        bench.run,
        "time step() beside torch's optimizers, and write a report; it needs a checkout of the repository",
        "fusedrms bench --quick",
    ),
    "presets": Command(
        presets.add_arguments,
        presets.run,
        "list the presets, or show how two of them differ",
        "fusedrms presets dqn, or fusedrms presets --diff tensorflow torch",
    ),
    "compile": Command(
        compile.add_arguments,
        compile.run,
        "compile kernels in advance, so that the first step of a job does not wait for the compiler",
        "fusedrms compile --target sm_90 --rules rmsprop --dtypes bfloat16+split+8bit",
    ),
}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fusedrms",
        description="Tools around the optimizers of fusedrms. fusedrms COMMAND --help has the options of a command and an example.",
        epilog="exit status: 0 done; 1 a problem was found; 2 wrong arguments; 130 interrupted by Ctrl-C",
    )
    parser.add_argument("--version", action="version", version=f"fusedrms {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            add_help=name != "bench" or bench.checkout() is None,  # the benchmarks have their own
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            epilog=f"example: {command.example}",
        )
        sub.add_argument("--json", action="store_true", help="print JSON instead of tables")
        command.add_arguments(sub)
    return parser


def main(argv: list[str] | None = None) -> int:
    printing.replace_missing()
    console = printing.console()
    parser = make_parser()
    args, rest = parser.parse_known_args(argv)
    if not args.command:
        parser.print_help(sys.stderr)
        parser.exit(2)
    if args.command == "bench":
        args.arguments = rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        code = COMMANDS[args.command].run(args, console)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"fusedrms {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has seen enough: fusedrms inspect | head
        sys.stderr.close()
        return 0
    except OSError as error:  # of what is printed: what is written elsewhere has errors that say what to do
        print(f"fusedrms {args.command}: {error}", file=sys.stderr)
        sys.stdout = io.StringIO()  # else Python fails once more at its end
        return 1
