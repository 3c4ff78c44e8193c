"""What Griffe does not see without running the package: a preset returns the optimizer that its decorator names."""

from typing import Any

from griffe import ExprCall, Extension, Function


class Presets(Extension):
    def on_function(self, *, func: Function, **_: Any) -> None:
        for decorator in func.decorators:
            if decorator.callable_path == "fusedrms.presets.preset.preset" and isinstance(decorator.value, ExprCall):
                func.returns = decorator.value.arguments[0]
