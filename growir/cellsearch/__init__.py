"""Cell search: a small stack of cells grows, what grew largest is left, and a larger network of it is trained anew."""
