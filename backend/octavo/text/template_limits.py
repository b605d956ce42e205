"""What a chat template may cost: time, and the size of what it makes. Knows Jinja, and no conversation.

A template is a program of the model's. Jinja's sandbox keeps it from Python's internals but not from running for ever, so each
turn of a loop and each call of a macro looks at the clock, and what can grow a text or a number checks how far.
"""

import time
from typing import Any

from jinja2 import Environment, Template, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from octavo.errors import InvalidRequest

MAX_SECONDS = 1.0
MAX_CHARACTERS = 16 << 20
_MAX_BITS = 1 << 16
_TICK, _JOIN = "octavo_tick", "octavo_join"


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, in which sums, products and powers stay small."""

    intercepted_binops = frozenset({"+", "*", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The result, unless it is over the limit."""
        if operator == "*":
            _check_size(_product_size(left, right))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > _MAX_BITS:
            raise InvalidRequest("The model's chat template computes a number that is too large.")
        result = super().call_binop(context, operator, left, right)
        _check_size(len(result) if isinstance(result, str | list | tuple) else 0)
        return result


def compiled(environment: Environment, source: str) -> Template:
    """``source`` with the checks in it. Raises what Jinja's own compilation raises."""
    tree = _Checks().visit(environment.parse(source))
    tree.set_environment(environment)
    return environment.template_class.from_code(environment, environment.compile(tree), environment.make_globals(None))


def rendered(template: Template, variables: dict[str, Any]) -> str:
    """What ``template`` writes. Raises ``InvalidRequest`` over a limit, and whatever else the template raises."""
    clock = _Clock()
    pieces, size = [], 0
    for piece in template.generate(**variables, **{_TICK: clock.tick, _JOIN: _joined}):
        clock.tick()
        size += len(piece)
        _check_size(size)
        pieces.append(piece)
    return "".join(pieces)


class _Clock:
    """Processor time of this thread, so that a busy machine is not the template's fault."""

    def __init__(self) -> None:
        self._end = time.thread_time() + MAX_SECONDS

    def tick(self) -> None:
        if time.thread_time() > self._end:
            raise InvalidRequest(f"The model's chat template takes more than {MAX_SECONDS:g} s for these messages.")


class _Checks(NodeTransformer):
    """Puts the checks where a template can go on or grow."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        return self._ticking(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._ticking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._ticking(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Call(nodes.Name(_JOIN, "load"), node.nodes, [], None, None, lineno=node.lineno)

    def _ticking(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        call = nodes.Call(nodes.Name(_TICK, "load"), [], [], None, None, lineno=node.lineno)
        node.body.insert(0, nodes.ExprStmt(call, lineno=node.lineno))
        return node


def _joined(*values: object) -> str:
    """What ``~`` makes of its operands."""
    texts = [str(value) for value in values]
    _check_size(sum(map(len, texts)))
    return "".join(texts)


def _product_size(left: Any, right: Any) -> int:
    if isinstance(left, int):
        left, right = right, left
    return len(left) * right if isinstance(left, str | list | tuple) and isinstance(right, int) else 0


def _check_size(characters: int) -> None:
    if characters > MAX_CHARACTERS:
        raise InvalidRequest(f"The model's chat template makes more than {MAX_CHARACTERS} characters of these messages.")
