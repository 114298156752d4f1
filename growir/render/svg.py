"""Drawing a picture as SVG: no script, nothing loaded, readable on light and on dark ground."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Literal, NamedTuple

from growir.graph import Graph
from growir.render.collapse import Box, Picture, collapse, told_apart
from growir.render.layout import layered
from growir.render.marks import Mark, growth_marks
from growir.render.strips import Scale, Strip, size_of
from growir.render.strips import drawn as strips_drawn
from growir.render.strips import legend as strip_legend
from growir.render.strips import rules as strip_rules
from growir.show import step_text

WRITTEN = "<!-- Written by growir -->"
NAME_CHARS, TEXT_CHARS = 34, 40
MAX_NAME_CHARS = 84  # of titles that differ in the middle
NAME_WIDTH, TEXT_WIDTH = 7.9, 7.0  # of a character: those of all fixed-width fonts are about as wide
HEADING_WIDTH = 9.1
PADDING, LINE = 12, 17
HEADER = 84

Colours = tuple[str, str, str, str]  # fill and border on light ground, then on dark
# Text is dark or light alike; a test measures the contrast.
FAMILIES: Mapping[str, Colours] = {
    "input": ("#f1f5f9", "#64748b", "#1e293b", "#94a3b8"),
    "module": ("#ffffff", "#475569", "#111827", "#9ca3af"),
    "linear": ("#dbeafe", "#2563eb", "#172554", "#60a5fa"),
    "conv": ("#cffafe", "#0891b2", "#083344", "#22d3ee"),
    "attention": ("#e0e7ff", "#4f46e5", "#1e1b4b", "#818cf8"),
    "embedding": ("#dbeafe", "#1d4ed8", "#172554", "#93c5fd"),
    "norm": ("#fef3c7", "#d97706", "#451a03", "#fbbf24"),
    "activation": ("#dcfce7", "#16a34a", "#052e16", "#4ade80"),
    "pool": ("#f3e8ff", "#9333ea", "#3b0764", "#c084fc"),
    "reduction": ("#f3e8ff", "#7e22ce", "#3b0764", "#d8b4fe"),
    "resample": ("#fae8ff", "#c026d3", "#4a044e", "#e879f9"),
    "join": ("#ffe4e6", "#e11d48", "#4c0519", "#fb7185"),
    "arithmetic": ("#ffe4e6", "#be123c", "#4c0519", "#fda4af"),
    "layout": ("#e7e5e4", "#78716c", "#292524", "#a8a29e"),
    "weight": ("#ffedd5", "#ea580c", "#431407", "#fb923c"),
    "other": ("#f4f4f5", "#71717a", "#27272a", "#a1a1aa"),
}
GROUND = ("#ffffff", "#0b0f19")
TEXT = ("#0f172a", "#f1f5f9")
ARROW = ("#64748b", "#94a3b8")
MARKS: Mapping[str, tuple[str, str]] = {
    "new": ("#15803d", "#4ade80"),
    "resized": ("#7e22ce", "#d8b4fe"),
    "added": ("#15803d", "#4ade80"),
    "removed": ("#b91c1c", "#f87171"),
    "changed": ("#a16207", "#facc15"),
}


def draw(
    graph: Graph,
    marks: Mapping[str, Mark] | None = None,
    limit: int | None = None,
    focus: Sequence[str] = (),
    tag: str = "g",
    strips: Mapping[str, Sequence[Strip]] | None = None,
    scale: Scale | None = None,
) -> str:
    """A picture of a graph as an SVG element.

    Args:
        graph: A verified graph.
        marks: What is to be said of nodes; `growth_marks` of the graph if None.
        limit: The most boxes; if None, as many as fit a page.
        focus: Nodes to show first where not all can be shown.
        tag: Begins the ids in it, which are unique in a page.
        strips: Scores of units, by the node that names their space.
        scale: What their colours mean; needed with strips.
    """
    marks = growth_marks(graph) if marks is None else marks
    picture = collapse(graph, limit, marks, focus)
    lines = [_lines(box, title) for box, title in zip(picture.boxes, _titles(picture.boxes), strict=True)]
    units = [[s for name in box.members for s in (strips or {}).get(name, ())] for box in picture.boxes]
    sizes = [size_of(each) for each in units]
    heights = [2 * PADDING - 4 + LINE * len(text) + tall for text, (_, tall) in zip(lines, sizes, strict=True)]
    widths = [max(_width(text), wide + 2 * PADDING) for text, (wide, _) in zip(lines, sizes, strict=True)]
    inputs = {k for k, box in enumerate(picture.boxes) if not box.members}
    layout = layered(widths, heights, picture.edges, inputs)
    costs = graph.costs()
    facts = f"{len(graph.nodes):,} nodes, {costs.parameters:,} parameters, {costs.macs:,} macs per sample"
    name = _cut(graph.name, 2 * TEXT_CHARS)
    legend, legend_width = _legend(picture)
    header = HEADER
    if scale is not None:
        more, scale_width = strip_legend(scale, 24, HEADER + 10)
        legend, legend_width, header = [*legend, *more], max(legend_width, scale_width + 24), HEADER + LINE
    width = max(layout.size[0], legend_width, 48 + round(max(len(name) * HEADING_WIDTH, len(facts) * TEXT_WIDTH)))
    shift = (width - layout.size[0]) // 2
    said = f"{graph.name}: {facts}", _description(picture)
    parts = [
        *opening((width, layout.size[1] + header), said, style(strips is not None), tag),
        f'<text class="heading" x="24" y="28">{plain(name)}</text>',
        f'<text x="24" y="48">{facts}</text>',
        *legend,
        f'<g transform="translate({shift} {header})">',
    ]
    for edge, route in layout.routes.items():
        names = f"{picture.boxes[edge[0]].label} to {picture.boxes[edge[1]].label}"
        path = _path(route)
        parts.append(
            f'<path class="edge" d="{path}" marker-end="url(#{tag}-head)"><title>{plain(names)}</title></path>'
        )
    for box, text, corner, size, each, (wide, tall) in zip(
        picture.boxes, lines, layout.corners, zip(widths, layout.heights, strict=True), units, sizes, strict=True
    ):
        box_parts = _drawn(box, text, corner, size, tall)
        if each and scale is not None:
            at = corner[0] + (size[0] - wide) // 2, corner[1] + size[1] - tall - 6
            box_parts[-1:] = [*strips_drawn(each, scale, *at), "</g>"]
        parts += box_parts
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def plain(text: str) -> str:
    """Text as a document shows it: escaped, and nothing in it that is obeyed instead of shown."""
    return escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


def opening(size: tuple[int, int], said: tuple[str, str], rules: str, tag: str) -> list[str]:
    """What a picture begins with: its ground, and the head of its arrows, which is called TAG-head.

    Args:
        size: Width and height.
        said: A title and a description, for those who do not see it.
        rules: Its style.
        tag: Begins the ids in it.
    """
    width, height = size
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="{tag}-title {tag}-desc" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" class="growir">',
        f'<title id="{tag}-title">{plain(said[0])}</title>',
        f'<desc id="{tag}-desc">{plain(said[1])}</desc>',
        f"<style>{rules}</style>",
        f'<defs><marker id="{tag}-head" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" '
        f'orient="auto-start-reverse"><path class="head" d="M0 0.5L8 4L0 7.5z"/></marker></defs>',
        f'<path class="ground" d="M0 0H{width}V{height}H0z"/>',
    ]


def style(strips: bool = False, families: Mapping[str, Colours] = FAMILIES) -> str:
    """The colours, for light and for dark ground."""
    # The ground is a shape, since not every viewer paints the background that a style gives the whole picture.
    rules = [
        ".growir{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:11.5px}",
        f".growir .ground{{fill:{GROUND[0]}}}.growir text{{fill:{TEXT[0]}}}",
        ".growir .name{font-weight:600;font-size:13px}.growir .heading{font-weight:600;font-size:15px}",
        f".growir .edge{{fill:none;stroke:{ARROW[0]};stroke-width:1.4}}.growir .head{{fill:{ARROW[0]}}}",
        ".growir .box rect{stroke-width:1.4}.growir .output rect{stroke-width:3}",
        ".growir .marked .fill,.growir .key .fill{stroke-width:3;stroke-dasharray:7 3}.growir .mark{font-weight:600}",
    ]
    dark = [f".growir .ground{{fill:{GROUND[1]}}}.growir text{{fill:{TEXT[1]}}}"]
    dark.append(f".growir .edge{{stroke:{ARROW[1]}}}.growir .head{{fill:{ARROW[1]}}}")
    for name, (fill, line, dark_fill, dark_line) in families.items():
        rules.append(f".growir .{name} .fill{{fill:{fill};stroke:{line}}}")
        dark.append(f".growir .{name} .fill{{fill:{dark_fill};stroke:{dark_line}}}")
    for name, colours in MARKS.items():
        for sheet, colour in zip((rules, dark), colours, strict=True):
            sheet.append(f".growir .{name} .fill{{stroke:{colour}}}.growir .{name} .mark{{fill:{colour}}}")
    if strips:
        for sheet, more in zip((rules, dark), strip_rules(), strict=True):
            sheet += more
    return "".join(rules) + f"@media (prefers-color-scheme:dark){{{''.join(dark)}}}"


def _legend(picture: Picture) -> tuple[list[str], int]:
    """What the colours mean, and how wide it is."""
    parts: list[str] = []
    x = 24
    for family in dict.fromkeys(_family(box) for box in picture.boxes):
        parts.append(f'<g class="{family}"><circle class="fill" cx="{x + 6}" cy="66" r="6"/></g>')
        word = "several nodes" if family == "module" else family
        parts.append(f'<text x="{x + 17}" y="70">{word}</text>')
        x += 32 + round(len(word) * TEXT_WIDTH)
    for kind in dict.fromkeys(box.mark.kind for box in picture.boxes if box.mark):
        parts.append(f'<g class="key {kind}"><path class="fill" d="M{x} 66h14"/></g>')
        parts.append(f'<text x="{x + 20}" y="70">{kind}</text>')
        x += 36 + round(len(kind) * TEXT_WIDTH)
    return parts, x


def _family(box: Box) -> str:
    return box.family if box.family in FAMILIES else "other"


class Line(NamedTuple):
    """A line of text in a box; `kind` is its class, "" for what is said of every box."""

    kind: Literal["name", "", "mark"]
    text: str


def _titles(boxes: Sequence[Box]) -> list[str]:
    """The boxes' labels, the middle of long ones left out; of two that would look the same then, less of it."""
    titles = [_cut(box.label, NAME_CHARS) for box in boxes]
    for most in range(NAME_CHARS + 10, MAX_NAME_CHARS + 1, 10):
        count = Counter(titles)
        titles = [
            _cut(box.label, most) if count[title] > 1 else title for box, title in zip(boxes, titles, strict=True)
        ]
    return told_apart(titles)


def _lines(box: Box, title: str) -> list[Line]:
    what = _wrapped(f"{box.what}{', output' if box.output else ''}")
    parameters = f"{box.parameters:,} parameters" if box.parameters else ""
    facts = ", ".join(filter(None, (box.shape, parameters)))
    what += [facts] if len(facts) <= TEXT_CHARS else [box.shape, parameters]
    marks: list[str] = []
    for sentence in box.mark.text.split("; ") if box.mark else ():
        marks += _wrapped(sentence) or [""]
    return [
        Line("name", title),
        *(Line("", _cut(line, TEXT_CHARS)) for line in what if line),
        *(Line("mark", _cut(line, TEXT_CHARS)) for line in marks),
    ]


def _wrapped(text: str) -> list[str]:
    """Lines that end at commas, if it is too long for one."""
    bound = text.replace(" ", "\xa0").replace(",\xa0", ", ")
    return [line.replace("\xa0", " ") for line in textwrap.wrap(bound, TEXT_CHARS)]


def _cut(text: str, most: int) -> str:
    """At most so many characters, both ends kept: the end of a dotted name says most."""
    if len(text) <= most:
        return text
    tail = most * 2 // 3
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


def _width(lines: Sequence[Line]) -> int:
    widest = max(len(line.text) * (NAME_WIDTH if line.kind == "name" else TEXT_WIDTH) for line in lines)
    return 2 * round((widest + 2 * PADDING) / 2)


def _drawn(box: Box, lines: Sequence[Line], corner: tuple[int, int], size: tuple[int, int], below: int) -> list[str]:
    classes = ["box", _family(box), *(["output"] if box.output else [])]
    classes += ["marked", box.mark.kind] if box.mark else []
    full = f"{box.label}: {box.what}, {box.shape}, {box.parameters:,} parameters"
    full += f"; {box.mark.text}" if box.mark else ""
    x, y = corner
    parts = [
        f'<g class="{" ".join(classes)}"><title>{plain(full)}</title>',
        f'<rect class="fill" x="{x}" y="{y}" width="{size[0]}" height="{size[1]}" rx="6"/>',
    ]
    first = y + (size[1] - below - LINE * (len(lines) - 1)) // 2 + 4
    for k, line in enumerate(lines):
        kind = f' class="{line.kind}"' if line.kind else ""
        at = f'x="{x + size[0] // 2}" y="{first + k * LINE}"'
        parts.append(f'<text{kind} {at} text-anchor="middle">{plain(line.text)}</text>')
    return [*parts, "</g>"]


def _path(route: Sequence[tuple[int, int]]) -> str:
    (x, y), *rest = route
    text = f"M{x} {y}"
    for k, (to_x, to_y) in enumerate(rest):
        if k % 2:
            text += f"L{to_x} {to_y}"
        elif to_x == x:
            text += f"V{to_y}"
        else:
            middle = (y + to_y) // 2
            text += f"C{x} {middle} {to_x} {middle} {to_x} {to_y}"
        x, y = to_x, to_y
    return text


def _description(picture: Picture) -> str:
    shown = f"{len(picture.boxes)} boxes and {len(picture.edges)} arrows, from inputs above to outputs below."
    marked = [f"{box.label} ({box.mark.text})" for box in picture.boxes if box.mark]
    return f"{shown} Marked: {'; '.join(marked)}." if marked else shown


def history_lines(graph: Graph) -> list[str]:
    """Each step of the history on a line."""
    return [step_text(step) for step in graph.history.steps] if graph.history else []
