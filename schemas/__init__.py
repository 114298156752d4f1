"""The JSON Schema of the graph document, and a sample document per older version."""
