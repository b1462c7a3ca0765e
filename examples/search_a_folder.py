"""Index a folder and ask it a question, from Python.

    python examples/search_a_folder.py PATH "where is the retry delay computed?" [--model codefuse-ai/C2LLM-0.5B]

The rows go to a temporary folder; name one that stays, and the next run embeds only what has changed.
"""

import argparse
from tempfile import TemporaryDirectory

from c2llm_integrations import C2LLMEmbedder, ingest, open_store, search


def main(folder: str, question: str, model: str) -> None:
    """Print the five chunks of `folder` that answer `question` best."""
    embedder = C2LLMEmbedder.from_pretrained(model)
    with TemporaryDirectory() as rows, open_store(f"qdrant+edge://{rows}") as store:
        report = ingest(folder, embedder, store)
        print(f"{report.files} files, {report.chunks} chunks in {report.seconds:.1f} s")
        for hit in search(question, embedder, store, limit=5):
            chunk = hit.chunk
            print(f"{hit.score:.3f}  {chunk.path}:{chunk.start_line}-{chunk.end_line}  {chunk.symbol}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("question")
    parser.add_argument("--model", default="nano")
    main(**vars(parser.parse_args()))
