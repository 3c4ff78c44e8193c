"""What Griffe does not see without running the package."""

from typing import Any

from griffe import Class, ExprCall, Extension, Function, Parameter, ParameterKind, Parameters


class Signatures(Extension):
    """Signatures as callers meet them."""

    def on_function(self, *, func: Function, **_: Any) -> None:
        """A preset returns the optimizer that its decorator names."""
        for decorator in func.decorators:
            if decorator.callable_path == "fusedrms.presets.preset.preset" and isinstance(decorator.value, ExprCall):
                func.returns = decorator.value.arguments[0]

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        """A NamedTuple is made of its fields."""
        if "NamedTuple" in map(str, cls.bases):
            kind = ParameterKind.positional_or_keyword
            fields = [
                Parameter(a.name, annotation=a.annotation, kind=kind, default=a.value)
                for a in cls.attributes.values()
                if "property" not in a.labels
            ]
            init = Function("__init__", parameters=Parameters(Parameter("self", kind=kind), *fields))
            cls.set_member("__init__", init)
