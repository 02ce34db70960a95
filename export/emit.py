"""What a lowering is handed: the target, the way to other lowerings, and the making of nodes under its own name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from export import values
from export.target import Target
from export.values import MICROSOFT, Array, Attribute, Carried, Value
from models.errors import Unsupported

# A lowering takes its module, its emitter and the module's inputs, and returns the module's output, or several.
Lowering = Callable[..., "Value | tuple[Value, ...]"]
# Linear layers that read the same values are lowered together: modules, emitters, input -> one output each.
GroupLowering = Callable[[Sequence[Any], "Sequence[Emit]", Value], Sequence[Value]]


@final
@dataclass(frozen=True, slots=True)
class Places:
    """What attention knows of where tokens stand.

    `mask` (batch, 1, 1 or readers, time), if any, is added to the scores, and `present` (time, batch, 1, 1) is 1 for a
    token and 0 for padding. `distances` (readers, time) are clipped to where a bias for distances ends. `along` and
    `across` (time, 1, 1, size) turn queries and keys. With `blocks` a window is read in these. `readers` are the tokens
    that read, where not all do.
    """

    mask: Value | None
    present: Value
    distances: Value | None = None
    along: Value | None = None
    across: Value | None = None
    blocks: Blocks | None = None
    readers: slice | None = None


@final
@dataclass(frozen=True, slots=True)
class Blocks:
    """Readers in blocks, each of which reads a stretch of the text.

    `readers` (block, blocks) and `read` (stretch, blocks) are the places of both, `mask` (blocks, batch, 1, block,
    stretch) and `distances` (blocks, block, stretch) what Places has for all. Of what all blocks give, the first
    `length` (1,) rows are the text's. `all_readers` are the places of the global tokens, which read everything.
    """

    readers: Value
    read: Value
    mask: Value
    length: Value
    distances: Value | None = None
    all_readers: Places | None = None


@final
@dataclass(frozen=True, slots=True)
class Emit:
    """Emits nodes for the module at `path`."""

    target: Target
    lowerings: Mapping[type[nn.Module], Lowering]
    groups: Mapping[type[nn.Module], GroupLowering]
    path: str = ""

    def at(self, name: str) -> Emit:
        """Return the emitter of the submodule `name`."""
        return replace(self, path=f"{self.path}.{name}" if self.path else name)

    def child(self, module: nn.Module, name: str, *inputs: Value | Places | None) -> Value:
        """Return the one output of the submodule called `name`.

        Raises:
            Unsupported: there is no lowering for its type.
        """
        (output,) = self.outputs(module, name, *inputs)
        return output

    def outputs(self, module: nn.Module, name: str, *inputs: Value | Places | None) -> tuple[Value, ...]:
        """Return all outputs of the submodule called `name`; raises as `child`."""
        part = module.get_submodule(name)
        if type(part) in self.groups:
            return tuple(self.groups[type(part)]([part], [self.at(name)], _given(inputs[0])))
        if type(part) not in self.lowerings:
            raise Unsupported(f"there is no ONNX form of a {type(part).__name__}", where=self.at(name).path)
        found = self.lowerings[type(part)](part, self.at(name), *inputs)
        return (found,) if isinstance(found, Value) else found

    def children(self, module: nn.Module, names: Sequence[str], hidden: Value) -> list[Value]:
        """Return the outputs of linear submodules that all read `hidden`: together where they are of one type."""
        parts = [module.get_submodule(name) for name in names]
        kinds = {type(part) for part in parts}
        if len(kinds) == 1 and kinds <= set(self.groups):
            return list(self.groups[kinds.pop()](parts, [self.at(name) for name in names], hidden))
        return [self.child(module, name, hidden) for name in names]

    def node(self, operator: str, *inputs: Value | None, role: str, **attributes: Attribute) -> Value:
        """Return the output of a standard operator."""
        (result,) = self.nodes(operator, *inputs, roles=(role,), **attributes)
        return result

    def total(self, *parts: Value, role: str) -> Value:
        """Return a sum that goes on as a stream, of the operator Sum. Where lengths are fixed it is Add, because the
        execution providers of phones have no Sum.
        """
        if not self.target.lengths:
            return self.node("Sum", *parts, role=role)
        first, *others = parts
        for number, part in enumerate(others):
            first = self.node("Add", first, part, role=role if number == len(others) - 1 else f"{role}_{number}")
        return first

    def nodes(
        self, operator: str, *inputs: Value | None, roles: tuple[str, ...], **attributes: Attribute
    ) -> tuple[Value, ...]:
        """Return the outputs of a standard operator, one for every role."""
        return values.node(operator, inputs, attributes=attributes, roles=roles, path=self.path)

    def microsoft(self, operator: str, *inputs: Value | None, role: str, **attributes: Attribute) -> Value:
        """Return the output of one of ONNX Runtime's own operators."""
        (result,) = self.several_of_microsoft(operator, *inputs, roles=(role,), **attributes)
        return result

    def several_of_microsoft(
        self, operator: str, *inputs: Value | None, roles: tuple[str, ...], **attributes: Attribute
    ) -> tuple[Value, ...]:
        """Return the outputs of one of ONNX Runtime's own operators, one for every role."""
        return self.of_domain(MICROSOFT, operator, *inputs, roles=roles, **attributes)

    def of_domain(
        self, domain: str, operator: str, *inputs: Value | None, roles: tuple[str, ...], **attributes: Attribute
    ) -> tuple[Value, ...]:
        """Return the outputs of an operator of another domain, one for every role."""
        return values.node(operator, inputs, domain=domain, attributes=attributes, roles=roles, path=self.path)

    def either(
        self,
        condition: Value,
        then: Sequence[Value],
        otherwise: Sequence[Value],
        *,
        outside: Sequence[Value],
        roles: tuple[str, ...],
    ) -> tuple[Value, ...]:
        """Return what one of two branches gives, as `values.either`."""
        return values.either(condition, then, otherwise, outside=outside, roles=roles, path=self.path)

    def loop(
        self, most: Value, going: Value, carried: Sequence[Carried], *, number: Value, role: str
    ) -> tuple[Value, ...]:
        """Return what the last round of a loop hands on, as `values.loop`."""
        return values.loop(most, going, carried, number=number, role=role, path=self.path)

    def alone(self, module: nn.Module, name: str) -> Value:
        """Return what the linear submodule called `name` adds where no input of it is left: its bias, or zeros."""
        linear = module.get_submodule(name)
        bias = linear.bias
        known = bias if isinstance(bias, Tensor) else torch.zeros(int(linear.out_features))  # type: ignore[arg-type]
        return self.at(name).constant(known, "bias")

    def constant(self, value: Tensor | Array, role: str) -> Value:
        """Return a constant of the module; a tensor is taken as it is, without a copy where it is contiguous."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        return values.constant(array, path=self.path, role=role)

    def integers(self, numbers: Sequence[int], role: str) -> Value:
        """Return a constant list of int64."""
        return self.constant(np.array(numbers, dtype=np.int64), role)

    def cut(self, value: Value, width: int, *, role: str) -> Value:
        """Return the first `width` of a value's last axis."""
        ends = (self.integers([number], name) for number, name in ((0, "first"), (width, "width"), (-1, "axis")))
        return self.node("Slice", value, *ends, role=role)


def taken_apart(widths: Sequence[int], emits: Sequence[Emit], together: Value) -> list[Value]:
    """Return the outputs of modules, each so wide, that one product gave side by side."""
    roles = tuple(part.path.rpartition(".")[2] for part in emits)
    return list(emits[0].nodes("Split", together, emits[0].integers(widths, "widths"), roles=roles, axis=-1))


def _given(value: Value | Places | None) -> Value:
    if not isinstance(value, Value):
        raise TypeError("a linear layer needs its input")
    return value
