"""The page of `c2llm browse`."""
