"""The published architecture. Importing this room registers `c2llm` with transformers' Auto classes."""

from transformers import AutoConfig, AutoModel

from c2llm_integrations.model.configuration import C2LLMConfig
from c2llm_integrations.model.modeling import C2LLMModel
from c2llm_integrations.model.pma import PMA

AutoConfig.register("c2llm", C2LLMConfig, exist_ok=True)
AutoModel.register(C2LLMConfig, C2LLMModel, exist_ok=True)

__all__ = ["PMA", "C2LLMConfig", "C2LLMModel"]
