"""What any LlamaIndex embedding class must do. Inherit, give `make`, and pytest runs it on yours:

class TestMine(EmbeddingConformance):
    def make(self, **fields):
        return MyEmbedding(**fields)

    other_settings = {"model_name": "another"}  # fields that change a vector, one at a time
"""

import asyncio
import math
import pickle

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from tests.event_loop import run_beside

TEXTS = ["def f(x):\n    return x\n", "", "  class A:\n\n    pass\n", "words", "ein Wörtchen 字", "words"]


class Recorder(BaseEventHandler):
    """Keeps every event of embedding."""

    events: list = []  # noqa: RUF012

    @classmethod
    def class_name(cls):
        return "Recorder"

    def handle(self, event, **kwargs):
        if isinstance(event, (EmbeddingStartEvent, EmbeddingEndEvent)):
            self.events.append(event)


def close(left, right, tolerance=1e-5):
    """Whether two lists of vectors agree."""
    return len(left) == len(right) and all(
        len(a) == len(b) and all(math.isclose(x, y, abs_tol=tolerance) for x, y in zip(a, b, strict=True))
        for a, b in zip(left, right, strict=True)
    )


class EmbeddingConformance:
    """The suite. `make` returns a new object; keyword arguments are fields that differ from the usual."""

    other_settings: dict = {}  # noqa: RUF012
    # How long a loop may be busy at once while texts are embedded, in seconds of its thread's processor time.
    longest_turn = 0.05

    def make(self, **fields):
        raise NotImplementedError

    @pytest.fixture
    def embedding(self):
        return self.make()

    @pytest.fixture
    def events(self):
        recorder, spans, dispatcher = Recorder(events=[]), SimpleSpanHandler(), get_dispatcher()
        handlers, span_handlers = list(dispatcher.event_handlers), list(dispatcher.span_handlers)
        dispatcher.add_event_handler(recorder)
        dispatcher.add_span_handler(spans)
        yield recorder.events, spans
        dispatcher.event_handlers, dispatcher.span_handlers = handlers, span_handlers

    # ---- vectors

    def test_every_vector_is_a_list_of_python_floats_of_one_width(self, embedding):
        vectors = [*embedding.get_text_embedding_batch(TEXTS), embedding.get_query_embedding("q")]
        assert all(type(vector) is list for vector in vectors)
        assert {type(number) for vector in vectors for number in vector} == {float}
        assert len({len(vector) for vector in vectors}) == 1
        assert all(math.isfinite(number) for vector in vectors for number in vector)

    def test_a_batch_is_the_same_as_one_by_one_in_order(self, embedding):
        alone = [embedding.get_text_embedding(text) for text in TEXTS]
        assert close(embedding.get_text_embedding_batch(TEXTS), alone)
        assert close(self.make(embed_batch_size=2).get_text_embedding_batch(TEXTS), alone)

    def test_no_texts_give_no_vectors(self, embedding):
        assert embedding.get_text_embedding_batch([]) == []
        assert asyncio.run(embedding.aget_text_embedding_batch([])) == []

    def test_the_same_text_gives_the_same_vector(self, embedding):
        assert embedding.get_text_embedding(TEXTS[0]) == embedding.get_text_embedding(TEXTS[0])

    def test_white_space_in_code_is_not_thrown_away(self, embedding):
        spaced, flat = embedding.get_text_embedding_batch(["if a:\n    b\nc\n", "if a: b c"])
        assert not close([spaced], [flat])

    # ---- async

    def test_async_gives_what_sync_gives(self, embedding):
        async def every_way():
            return (
                [await embedding.aget_text_embedding(TEXTS[0]), await embedding.aget_query_embedding(TEXTS[0])],
                await embedding.aget_text_embedding_batch(TEXTS),
                await self.make(num_workers=2, embed_batch_size=2).aget_text_embedding_batch(TEXTS),
            )

        single, batch, by_workers = asyncio.run(every_way())
        assert close(single, [embedding.get_text_embedding(TEXTS[0]), embedding.get_query_embedding(TEXTS[0])])
        assert close(batch, embedding.get_text_embedding_batch(TEXTS))
        assert close(by_workers, batch)

    def test_the_loop_is_never_blocked_while_1000_texts_are_embedded(self, embedding):
        embedding.get_text_embedding("load first")
        work = embedding.aget_text_embedding_batch([f"{TEXTS[0]}{n}" for n in range(1000)])
        vectors, turns, longest = asyncio.run(run_beside(work))
        assert len(vectors) == 1000
        assert turns > 1
        assert longest < self.longest_turn

    # ---- settings, caches, copies

    def test_a_round_trip_through_a_dict_keeps_every_setting(self, embedding):
        for made in (embedding, *(self.make(**{key: value}) for key, value in self.other_settings.items())):
            again = type(made).from_dict(made.to_dict())
            assert again.to_dict() == made.to_dict()
        assert type(embedding).from_json(embedding.to_json()).get_text_embedding("x") == embedding.get_text_embedding(
            "x"
        )

    def test_every_setting_that_changes_a_vector_changes_the_cache_key(self):
        nodes = [TextNode(text="x", id_="1")]
        made = [self.make(), *(self.make(**{key: value}) for key, value in self.other_settings.items())]
        assert len({get_transformation_hash(nodes, one) for one in made}) == len(made)
        assert get_transformation_hash(nodes, self.make()) == get_transformation_hash(nodes, self.make())

    def test_a_cache_never_answers_a_query_with_a_documents_vector(self, embedding):
        cached = self.make(embeddings_cache=SimpleKVStore())
        wanted = embedding.get_text_embedding("x"), embedding.get_query_embedding("x")
        for _ in range(2):
            assert (cached.get_text_embedding("x"), cached.get_query_embedding("x")) == wanted
            assert cached.get_text_embedding_batch(["x"]) == [wanted[0]]

        async def by_async():
            return (await cached.aget_text_embedding("x"), await cached.aget_query_embedding("x"))

        assert asyncio.run(by_async()) == wanted

    def test_a_cache_is_used_and_holds_settings_apart(self, embedding):
        cache = SimpleKVStore()
        first = self.make(embeddings_cache=cache).get_text_embedding_batch(["x", "y"])
        size = len(cache.get_all("embeddings"))
        assert size == 2
        assert self.make(embeddings_cache=cache).get_text_embedding_batch(["x", "y"]) == first
        assert len(cache.get_all("embeddings")) == size
        for key, value in self.other_settings.items():
            other = self.make(**{key: value}, embeddings_cache=cache)
            assert close([other.get_text_embedding("x")], [self.make(**{key: value}).get_text_embedding("x")])

    def test_a_pickled_copy_gives_the_same_vectors(self, embedding):
        before = embedding.get_text_embedding("x")
        twin = pickle.loads(pickle.dumps(embedding))
        assert twin.to_dict() == embedding.to_dict()
        assert close([twin.get_text_embedding("x")], [before])

    # ---- the framework

    def test_events_and_spans_are_fired_once_a_call(self, embedding, events):
        fired, spans = events
        embedding.get_query_embedding("q")
        embedding.get_text_embedding("t")
        embedding.get_text_embedding_batch(["a", "b"])
        asyncio.run(embedding.aget_query_embedding("q"))
        asyncio.run(embedding.aget_text_embedding_batch(["a", "b"]))
        kinds = [type(event) for event in fired]
        assert kinds == [EmbeddingStartEvent, EmbeddingEndEvent] * 5
        assert [event.chunks for event in fired[1::2]] == [["q"], ["t"], ["a", "b"], ["q"], ["a", "b"]]
        assert all(len(event.embeddings) == len(event.chunks) for event in fired[1::2])
        outer = [span.id_ for span in spans.completed_spans if "._" not in span.id_]
        assert len(outer) == 5
        assert all(span.startswith(type(embedding).__name__) for span in outer)

    def test_callbacks_hear_of_chunks_and_vectors(self):
        handler = LlamaDebugHandler(print_trace_on_end=False)
        embedding = self.make(callback_manager=CallbackManager([handler]))
        vectors = embedding.get_text_embedding_batch(["a", "b"])
        ((_, end),) = handler.get_event_pairs(CBEventType.EMBEDDING)
        assert end.payload[EventPayload.CHUNKS] == ["a", "b"]
        assert end.payload[EventPayload.EMBEDDINGS] == vectors

    def test_a_pipeline_embeds_nodes_and_its_cache_knows_them_again(self, embedding):
        nodes = [TextNode(text=text, id_=str(number)) for number, text in enumerate(TEXTS) if text]
        cache = IngestionCache()
        done = IngestionPipeline(transformations=[embedding], cache=cache).run(nodes=nodes)
        again = IngestionPipeline(transformations=[self.make()], cache=cache).run(nodes=nodes)
        assert close([node.embedding for node in done], embedding.get_text_embedding_batch([n.text for n in nodes]))
        assert [node.embedding for node in again] == [node.embedding for node in done]

    def test_a_pipeline_of_several_processes_gives_the_same(self, embedding):
        nodes = [TextNode(text=f"text {number}", id_=str(number)) for number in range(6)]
        embedding.get_text_embedding("load here first")
        wanted = embedding.get_text_embedding_batch([node.text for node in nodes])
        pipeline = IngestionPipeline(transformations=[embedding], disable_cache=True)
        for done in (pipeline.run(nodes=nodes, num_workers=2), asyncio.run(pipeline.arun(nodes=nodes, num_workers=2))):
            assert close([node.embedding for node in sorted(done, key=lambda node: int(node.id_))], wanted)
