"""What a browser would make of a page: its elements and texts, and whether every element is closed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "hr", "col", "img", "input", "link"}


@dataclass
class Element:
    """An element with its attributes, its own text and what it lies in."""

    tag: str
    attributes: dict[str, str]
    parent: Element | None
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self, tag: str) -> list[Element]:
        """Return the elements of one kind within this one, in order."""
        inner = [found for child in self.children for found in child.all(tag)]
        return ([self] if self.tag == tag else []) + inner

    @property
    def classes(self) -> set[str]:
        """Return the words of its class."""
        return set(self.attributes.get("class", "").split())

    @property
    def whole(self) -> str:
        """Return all the text within."""
        return self.text + "".join(child.whole for child in self.children)


class Page(HTMLParser):
    """A parsed page. Reading it raises AssertionError where an element is left open or closed twice."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {}, None)
        self.at = self.root
        self.feed(source)
        self.close()
        assert self.at is self.root, f"<{self.at.tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, self.at)
        assert len(element.attributes) == len(attrs), f"an attribute of <{tag}> is given twice"
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag and self.at.parent is not None, f"</{tag}> closes <{self.at.tag}>"
        self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.text += data

    @property
    def text(self) -> str:
        """Return what is read on the page."""
        return " ".join(body.whole for body in self.root.all("body"))

    def elements(self, tag: str) -> list[Element]:
        """Return every element of one kind."""
        return self.root.all(tag)


def strays(drawing: Element) -> list[str]:
    """Return the marks of an SVG drawing that lie outside of its frame or nowhere."""
    _, _, width, height = (float(number) for number in drawing.attributes["viewbox"].split())
    found = []
    for tag in ("rect", "line", "circle", "text", "polyline", "polygon"):
        for mark in drawing.all(tag):
            for name, value in mark.attributes.items():
                limit = {"x": width, "x1": width, "x2": width, "cx": width}.get(name)
                limit = limit or {"y": height, "y1": height, "y2": height, "cy": height}.get(name)
                numbers = [float(one) for one in re.split("[ ,]", value)] if name == "points" else []
                numbers += [float(value)] if limit or name in ("width", "height", "r") else []
                if not all(math.isfinite(one) and -1 <= one <= (limit or 1e4) + 1 for one in numbers):
                    found.append(f"<{tag} {name}={value}>")
    return found
