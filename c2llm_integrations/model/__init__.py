"""A checkpoint → vectors. The only folder that needs torch."""
