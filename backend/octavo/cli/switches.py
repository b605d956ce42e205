"""``SwitchCommand``: switches that may have a value, as tritonserver's do (``--grpc-use-ssl=1``), beside the usual two forms."""

from typing import Any

from typer.core import TyperCommand, TyperOption

_ON, _OFF = {"true", "on", "1"}, {"false", "off", "0"}


class SwitchCommand(TyperCommand):
    """A command whose switches take true, on, 1, false, off or 0, behind an equals sign or as the next word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read ``args`` with every such value turned into the switch that it stands for."""
        return super().parse_args(ctx, self._without_values(args))

    def _without_values(self, args: list[str]) -> list[str]:
        offs = {name: option.secondary_opts[0] for option in self.params if _is_switch(option) for name in option.opts}
        plain: list[str] = []
        words = list(reversed(args))
        while words:
            name, equals, value = (word := words.pop()).partition("=")
            if name in offs and not equals and words and words[-1].lower() in _ON | _OFF:
                value = words.pop()
            if name in offs and value.lower() in _ON | _OFF:
                word = name if value.lower() in _ON else offs[name]
            plain.append(word)
        return plain


def _is_switch(option: object) -> bool:
    return isinstance(option, TyperOption) and bool(option.is_flag and option.secondary_opts)
