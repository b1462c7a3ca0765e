"""Questions → ranked hits: dense and lexical lists, fusion, the rules that rank."""
