"""Web pages that stand alone: a graph's picture with its history, and two graphs side by side."""

from __future__ import annotations

import json
from collections.abc import Iterable

from growir.difference import Difference, NodeChange, lines
from growir.graph import Graph
from growir.render.marks import Mark
from growir.render.svg import GROUND, MARKS, TEXT, WRITTEN, draw, history_lines, plain
from growir.show import SHORT_HASH

# Nothing is loaded from anywhere and nothing runs; the page says so to the browser too.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def graph_page(graph: Graph, limit: int | None = None) -> str:
    """A graph's picture and history as HTML."""
    body = [f"<h1>{plain(graph.name)}</h1>", f"<p><code>{graph.hash[:SHORT_HASH]}</code></p>"]
    body.append(f'<div class="picture">\n{draw(graph, limit=limit)}</div>')
    steps = history_lines(graph)
    if steps:
        assert graph.history is not None
        body.append(f"<h2>History from <code>{graph.history.base.hash[:SHORT_HASH]}</code></h2>")
        body.append("<ol>\n" + "\n".join(f"<li>{plain(step)}</li>" for step in steps) + "\n</ol>")
    return _page(graph.name, body)


def difference_page(difference: Difference, limit: int | None = None) -> str:
    """What two graphs have not in common as HTML: their pictures side by side, and each difference in words."""
    before, after = difference.before, difference.after
    changed = {change.name: Mark("changed", _change_text(change)) for change in difference.changed}
    removed = {node.name: Mark("removed", "removed") for node in difference.removed}
    added = {node.name: Mark("added", "added") for node in difference.added}
    pictures = [
        f'<div class="picture">\n{draw(graph, marks, limit, [*marks], tag)}</div>'
        for graph, marks, tag in ((before, changed | removed, "before"), (after, changed | added, "after"))
    ]
    title = f"{before.name} and {after.name}"
    counts = f"{len(added)} added, {len(removed)} removed, {len(changed)} changed"
    body = [f"<h1>{plain(title)}</h1>", f"<p>{difference.verdict}: {counts}</p>", *_text(difference)]
    body.append('<div class="both">\n' + "\n".join(pictures) + "\n</div>")
    return _page(title, body)


def _change_text(change: NodeChange) -> str:
    """The first thing that changed of a node, and how many others did."""
    fields = [*([change.kind] if change.kind else []), *change.attributes, *change.tied]
    texts = [f"{field.name} {json.dumps(field.before)} -> {json.dumps(field.after)}" for field in fields]
    texts += ["other inputs"] if change.edges else []
    return texts[0] if len(texts) == 1 else f"{texts[0]}, +{len(texts) - 1}"


def _text(difference: Difference) -> Iterable[str]:
    yield '<pre class="lines">'
    yield "\n".join(f'<span class="{line.kind}">{plain(line.text)}</span>' for line in lines(difference))
    yield "</pre>"


def _page(title: str, body: Iterable[str]) -> str:
    colours = {**MARKS, "width": MARKS["changed"]}
    light, dark = (
        "".join(f".lines .{name}{{color:{pair[side]}}}" for name, pair in colours.items()) for side in (0, 1)
    )
    style = (
        f"body{{font-family:system-ui,sans-serif;margin:2rem;background:{GROUND[0]};color:{TEXT[0]}}}"
        ".picture{overflow:auto}.both{display:flex;gap:1rem;align-items:flex-start}"
        ".both .picture{flex:1 1 0;min-width:0}"
        f".lines .heading{{font-weight:bold}}{light}"
        f"@media (prefers-color-scheme:dark){{body{{background:{GROUND[1]};color:{TEXT[1]}}}{dark}}}"
    )
    head = [
        "<!doctype html>",
        WRITTEN,
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{plain(title)}</title>",
        f"<style>{style}</style>",
        "</head>",
        "<body>",
    ]
    return "\n".join([*head, *body, "</body>", "</html>"]) + "\n"
