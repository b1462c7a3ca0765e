"""Load records of several customers into Milvus, and search those of one.

    python examples/records_into_milvus.py FILE.parquet CUSTOMER "how is the delay computed?"
        [--url milvus+http://localhost:19530] [--model codefuse-ai/C2LLM-0.5B]

The file has the columns id, text and customer, and any others; a record without a customer is refused. A run that was
killed continues when run again.
"""

import argparse

from c2llm_integrations import C2LLMEmbedder, ingest_records, open_store


def main(file: str, customer: str, question: str, url: str, model: str) -> None:
    """Load `file` and print the three records of `customer` that answer `question` best."""
    embedder = C2LLMEmbedder.from_pretrained(model)
    with open_store(url, "tickets") as store:
        report = ingest_records(file, embedder, store, source="tickets", fields={"customer": "tenant"})
        print(f"{report.written} written, {report.unchanged} unchanged, {report.refused_count} refused")
        query = embedder.encode_queries([question])[0]
        for hit in store.search(query, 3, {"customer": customer}):
            print(f"{hit.score:.3f}  {hit.record.id}  {hit.record.text[:60]!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("customer")
    parser.add_argument("question")
    parser.add_argument("--url", default="milvus+lite://tickets.db")
    parser.add_argument("--model", default="nano")
    main(**vars(parser.parse_args()))
