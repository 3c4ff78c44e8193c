"""One step of every system's optimizer, as its own source writes it, in NumPy; never imports the package.

Each is a function of its options that returns `step(params, grads, states, t)`. That changes the arrays of params and states in
place: lists with an entry for each parameter, states being dicts with torch's names. t counts steps from 1.
"""

import inspect

from . import current, older, papers

RULES = {
    name: value
    for module in (current, older, papers)
    for name, value in vars(module).items()
    if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
}
