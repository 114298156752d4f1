"""Cells: small DAGs whose edges are operations, of which a network is a stack (Liu et al. 2018, DARTS).

found = genotype("DARTS_V2")                                  # by name, as DARTS' text, or from a file
graph = network(found, (3, 32, 32), 10, cells=20, width=36)   # the network that papers evaluate
plan = Template(nodes=4)                                      # every operation on every edge, to be searched
search = network(plan, (3, 32, 32), 10, cells=5, width=16)
left = Discretise(threshold=5).rewrite(search).graph          # of growir.passes, once its operations have grown
genotype_of(left)                                             # what was found, in DARTS' notation
"""

from growir.cells.genotype import PUBLISHED, Genotype, genotype
from growir.cells.network import block, cell, network
from growir.cells.operations import OPERATIONS
from growir.cells.reading import CellAt, cells_of, fragment, genotype_of
from growir.cells.template import Template

__all__ = [
    "OPERATIONS",
    "PUBLISHED",
    "CellAt",
    "Genotype",
    "Template",
    "block",
    "cell",
    "cells_of",
    "fragment",
    "genotype",
    "genotype_of",
    "network",
]
