"""The types of arguments that count something."""

import argparse
import math


def amount(text: str) -> float:
    """Such as 70e9."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 1 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of at least 1, such as 70e9")
    return number


def whole(text: str) -> int:
    """Such as 64."""
    if not (text.isascii() and text.isdecimal()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of at least 1, such as 64")
    return int(text)
