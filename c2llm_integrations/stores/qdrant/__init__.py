"""Qdrant: its engine in this process (Edge), its client in memory, a server, or Qdrant Cloud."""
