"""A checkpoint → vectors. The only room that needs torch."""
