"""What policies measure with: sections of a graph, the designs of layers, over-grown networks."""
