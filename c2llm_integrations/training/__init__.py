"""Pairs from documented code, and what learns from them: heads, adapters, ranges for 8 bits; and evaluation."""
