"""Equal instances become one module; what a module holds is counted by its instances."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.synthesis import hierarchy
from intaglio.synthesis.hierarchy import Port

RECORDED = Path(__file__).parent / "recorded"

PAIR = r"""
attribute \src "a.sv:1.1"
module \leaf$top.u_{0}
  wire input 1 \a
  wire output 2 \y
  attribute \src "a.sv:{0}.1"
  wire $1
  cell $not ${1}
    connect \A \a
    connect \Y $1
  end
  cell $buf $procmux${2}
    connect \A $1
    connect \Y \y
  end
end
"""

TOP = r"""
module \top
  wire input 1 \a
  wire output 2 \y
  cell \leaf$top.u_1 \u_1
    connect \a \a
  end
  cell \leaf$top.u_2 \u_2
    connect \a \a
  end
end
"""


def design() -> hierarchy.Hierarchy:
    return hierarchy.build((RECORDED / "design.il").read_text(), "top")


def test_equal_instances_are_one_module() -> None:
    tree = design()
    assert tree.instances() == {"top": 1, "product": 3, "product_2": 1}
    assert list(tree.modules)[-1] == "top"


def test_ports_and_memories() -> None:
    tree = design()
    assert Port("clk_i", "input", 1) in tree.modules["top"].ports
    assert Port("p_o", "output", 32) in tree.modules["product_2"].ports
    assert set(tree.modules["top"].memories) == {("mem", 32, 512), ("few", 8, 16)}


def test_a_module_with_interfaces_of_its_children_only() -> None:
    text = design().with_interfaces("top")
    parsed = hierarchy.parse(text)
    assert [name for name, module in parsed.items() if module.blackbox] == ["product", "product_2"]
    assert "$mul" not in text
    assert design().with_interfaces("product").count("module ") == 1


def test_a_unit_is_what_it_holds() -> None:
    assert design().below("product").instances() == {"product": 1}


@pytest.mark.parametrize(
    ("first", "second", "modules"),
    [
        # Automatic numbers differ from instance to instance, and may meet by chance.
        ((2, 7), (2, 9), 1),
        ((2, 1), (2, 9), 1),
        ((2, 2), (5, 9), 1),
    ],
)
def test_automatic_numbers_do_not_matter(
    first: tuple[int, int], second: tuple[int, int], modules: int
) -> None:
    text = PAIR.format(1, *first) + PAIR.format(2, *second) + TOP
    assert len(hierarchy.build(text, "top").modules) - 1 == modules


def test_contents_matter() -> None:
    text = PAIR.format(1, 2, 3) + PAIR.format(2, 2, 3).replace("$not", "$neg") + TOP
    assert hierarchy.build(text, "top").instances() == {"top": 1, "leaf": 1, "leaf_2": 1}


def test_wires_matter() -> None:
    swapped = PAIR.format(2, 2, 3).replace(r"connect \A $1", r"connect \A \a")
    assert len(hierarchy.build(PAIR.format(1, 2, 3) + swapped + TOP, "top").modules) == 3
