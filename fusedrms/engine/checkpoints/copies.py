"""The tensors of a state_dict that are copies, since they are stored in another form."""

from collections.abc import Iterable

from torch import Tensor

from ..sharded import local


class Copies:
    """Those that a state_dict holds: whoever writes into one must load it.

    Args:
        named: the copies.
        before: of the state_dict before.
    """

    def __init__(self, named: Iterable[tuple[str, Tensor]], before: "Copies | None"):
        self._lost = before.lost() if before else None
        self._known = []
        for name, tensor in named:
            own = local(tensor)
            twin = own.detach()
            twin.data = own.new_empty(0)  # has no memory, but is still told of what is written
            self._known.append((name, twin, twin._version))

    def lost(self) -> str | None:
        """The first that was written, if one was."""
        return self._lost or next((name for name, twin, version in self._known if twin._version != version), None)

    def check(self) -> None:
        """RuntimeError if one was written."""
        if name := self.lost():
            raise RuntimeError(
                f"the {name} that state_dict() returned has been written to, for example by torch.distributed.checkpoint.load, but it is a "
                "copy: the optimizer stores it in another form. Pass the state_dict to set_optimizer_state_dict() or load_state_dict(). "
                "To go on without what was written, call optimizer.load_state_dict(optimizer.state_dict())"
            )
