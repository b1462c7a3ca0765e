"""Reads {"folder", "batches", "width"} and writes the vectors of each batch, by FastEmbed, in its own environment."""

import json
import sys

from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

request = json.load(sys.stdin)
TextEmbedding.add_custom_model(
    model="exported",
    pooling=PoolingType.DISABLED,
    normalization=False,
    sources=ModelSource(hf="nobody/exported"),
    dim=request["width"],
)
model = TextEmbedding("exported", specific_model_path=request["folder"])
print(json.dumps([[vector.tolist() for vector in model.embed(texts)] for texts in request["batches"]]))
