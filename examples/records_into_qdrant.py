"""Load your own records into Qdrant, searched by int8 codes, and ask for some of them.

    python examples/records_into_qdrant.py FILE.jsonl "how is the delay computed?" [--language go]
        [--url qdrant+http://localhost:6333] [--model codefuse-ai/C2LLM-0.5B]

Each line is {"id": ..., "text": ..., "language": ..., "votes": ...} and any other fields. A run that was killed
continues when run again. After changes, a run embeds only new texts and deletes what is gone.
"""

import argparse
from pathlib import Path

from c2llm_integrations import C2LLMEmbedder, CompactPlan, ingest_records, open_store, search


def main(file: str, question: str, language: str | None, url: str, model: str) -> None:
    """Load `file` and print the three records that answer `question` best."""
    embedder = C2LLMEmbedder.from_pretrained(model)
    with open_store(url, "snippets") as store:
        report = ingest_records(
            file,
            embedder,
            store,
            source="snippets",
            compact=CompactPlan(quantization="int8"),
            fields={"language": "keyword", "votes": "integer"},
            delete_missing=True,
            refused=Path(f"{file}.refused"),
        )
        print(
            f"{report.written} written, {report.updated} updated, {report.unchanged} unchanged, "
            f"{report.deleted} deleted, {report.refused_count} refused"
        )
        for why in report.refused.values():
            print(f"refused: {why}")
        for hit in search(question, embedder, store, limit=3, language=language):
            print(f"{hit.score:.3f}  {hit.record.id}  {hit.record.metadata.get('votes')} votes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("question")
    parser.add_argument("--language")
    parser.add_argument("--url", default="qdrant+edge://snippets")
    parser.add_argument("--model", default="nano")
    main(**vars(parser.parse_args()))
