"""Pictures of graphs: collapsed to few boxes, laid out in layers, drawn as SVG, and pages around them."""

from growir.render.cells import Arrow, Drawn, cells_of_graph, cells_of_plan, draw_cells
from growir.render.collapse import MAX_BOXES, MAX_ROWS, Box, Picture, collapse
from growir.render.marks import Mark, growth_marks
from growir.render.page import difference_page, graph_page
from growir.render.svg import draw

__all__ = [
    "MAX_BOXES",
    "MAX_ROWS",
    "Arrow",
    "Box",
    "Drawn",
    "Mark",
    "Picture",
    "cells_of_graph",
    "cells_of_plan",
    "collapse",
    "difference_page",
    "draw",
    "draw_cells",
    "graph_page",
    "growth_marks",
]
