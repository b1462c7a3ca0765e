"""An OpenAI-compatible API, the agents' MCP, a page, the index that they keep fresh, and C2LLM as a model of vLLM."""
