"""The elaborated design, module by module: equal instances become one module, which is then synthesized once.

Works on RTLIL, Yosys' text form of a design. Elaboration makes a module of every instance; two that differ in nothing
but automatic names are the same hardware.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_CELL = re.compile(r"^ +cell \\(?P<type>\S+) ")
_PORT = re.compile(
    r"^  wire (?:width (?P<width>\d+) )?.*\b(?P<way>input|output|inout) \d+\b.* \\(?P<name>\S+)$"
)
_MEMORY = re.compile(r"^  memory (?:width (?P<width>\d+) )?size (?P<size>\d+) \\?(?P<name>\S+)$")
_AUTOMATIC = re.compile(r"(?P<stem>(?:\$[A-Za-z_][\w.\[\]]*)?)\$\d+")


@dataclass(frozen=True)
class Port:
    """One port of a module; `way`: input, output or inout."""

    name: str
    way: str
    width: int


@dataclass
class Module:
    """A module in RTLIL; `children`: instances of modules that have contents, by module."""

    name: str
    attributes: list[str]
    body: list[str]
    children: Counter[str] = field(default_factory=Counter)

    @property
    def blackbox(self) -> bool:
        return any(line.startswith(r"attribute \blackbox ") for line in self.attributes)

    @property
    def ports(self) -> list[Port]:
        found = (_PORT.match(line) for line in self.body)
        return [Port(m["name"], m["way"], int(m["width"] or 1)) for m in found if m]

    @property
    def memories(self) -> list[tuple[str, int, int]]:
        """Name, width and words of every memory."""
        found = (_MEMORY.match(line) for line in self.body)
        return [(m["name"], int(m["width"] or 1), int(m["size"])) for m in found if m]

    def text(self) -> str:
        """The module in RTLIL."""
        return "\n".join([*self.attributes, f"module \\{self.name}", *self.body, "end", ""])

    def interface(self) -> str:
        """The module in RTLIL, without its contents."""
        ports = [line for line in self.body if _PORT.match(line)]
        return "\n".join([r"attribute \blackbox 1", f"module \\{self.name}", *ports, "end", ""])


@dataclass(frozen=True)
class Hierarchy:
    """Distinct modules, children before parents: the top comes last."""

    modules: dict[str, Module]
    top: str

    def below(self, name: str) -> Hierarchy:
        """What module `name` holds, with it at the top."""
        counted = self.instances(name)
        return Hierarchy({n: m for n, m in self.modules.items() if counted[n]}, name)

    def instances(self, top: str | None = None) -> Counter[str]:
        """How often each module occurs in the design (in `top`)."""
        counted: Counter[str] = Counter({top or self.top: 1})
        for name, module in reversed(self.modules.items()):
            for child, number in module.children.items():
                counted[child] += number * counted[name]
        return counted

    def text(self) -> str:
        """The design in RTLIL."""
        return "".join(module.text() for module in self.modules.values())

    def with_interfaces(self, name: str) -> str:
        """Module `name` in RTLIL, its children as black boxes."""
        module = self.modules[name]
        return "".join([*(self.modules[child].interface() for child in module.children), module.text()])

    def fingerprint(self, name: str) -> str:
        """A hash of what synthesis sees of module `name`; source positions and automatic names do not enter."""
        text = _canonical(self.with_interfaces(name).splitlines())
        return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str) -> dict[str, Module]:
    """The modules of an RTLIL file, by name."""
    modules: dict[str, Module] = {}
    attributes: list[str] = []
    current: Module | None = None
    for line in text.splitlines():
        if line.startswith("attribute "):
            attributes.append(line)
        elif line.startswith("module "):
            current = Module(line.removeprefix("module \\"), attributes, [])
            modules[current.name] = current
            attributes = []
        elif line == "end":
            current = None
        elif current is not None:
            current.body.append(line)
    return modules


def build(text: str, top: str) -> Hierarchy:
    """The design in `text` (RTLIL) below `top`, equal modules merged; a module is called what its source calls it."""
    parsed = parse(text)
    merged: dict[str, Module] = {}
    known: dict[tuple[str, str], str] = {}
    renamed: dict[str, str] = {}
    names = list(_children_first(parsed, top))
    alike = Counter(map(_base, names))
    for name in names:
        module, base = parsed[name], _base(name)
        _rename_children(module, renamed)
        key = (base, _canonical(module.body) if alike[base] > 1 else "")
        if key not in known:
            known[key] = module.name = _free(base, merged)
            merged[module.name] = module
        renamed[name] = known[key]
    return Hierarchy(merged, renamed[top])


def _base(name: str) -> str:
    """What the source calls a module that elaboration named after an instance."""
    return name.split("$")[0] or name


def _children_first(modules: dict[str, Module], top: str) -> Iterable[str]:
    """The modules with contents below `top`, each after those it instantiates."""
    done: dict[str, None] = {}
    stack = [(top, False)]
    while stack:
        name, expanded = stack.pop()
        if name in done:
            continue
        if expanded:
            done[name] = None
            continue
        stack.append((name, True))
        children = reversed(_children(modules[name], modules))
        stack += [(child, False) for child in children if child not in done]
    return done


def _children(module: Module, modules: dict[str, Module]) -> Counter[str]:
    types = (found["type"] for line in module.body if (found := _CELL.match(line)))
    return Counter(t for t in types if t in modules and not modules[t].blackbox)


def _rename_children(module: Module, names: dict[str, str]) -> None:
    for index, line in enumerate(module.body):
        found = _CELL.match(line)
        if found and found["type"] in names:
            name = names[found["type"]]
            module.body[index] = line.replace(f"cell \\{found['type']} ", f"cell \\{name} ", 1)
            module.children[name] += 1


def _canonical(body: list[str]) -> str:
    """A module's contents without source positions, its automatic numbers counted from 0 in order of appearance."""
    numbers: dict[str, int] = {}
    lines = [line for line in body if not line.lstrip().startswith(r"attribute \src ")]
    return _AUTOMATIC.sub(lambda m: f"{m['stem']}${numbers.setdefault(m[0], len(numbers))}", "\n".join(lines))


def _free(base: str, taken: dict[str, Module]) -> str:
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name
