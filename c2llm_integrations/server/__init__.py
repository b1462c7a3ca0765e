"""Servers on the loopback: an OpenAI-compatible API, the agents' MCP, a page, and the index that they keep fresh."""
