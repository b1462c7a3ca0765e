"""An uncased WordPiece tokenizer that reads identifiers as words, on a pruned vocabulary of another model."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

PAD, UNKNOWN = "[PAD]", "[UNK]"
# Zero-width places where an identifier changes case: after a lower-case letter or digit, and before the last capital
# of a run that a lower-case letter follows.
_CASE_CHANGE = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
# Letters, digits and punctuation never share a token; the bounds keep WordPiece linear on data and rulers.
_WORD = r"\p{L}{1,32}|\p{N}{1,6}|[^\p{L}\p{N}\s_]{1,3}"


def code_tokenizer(vocabulary: Mapping[str, int]) -> Tokenizer:
    """The tokenizer over `vocabulary` (piece → id; continuations begin with ##; [PAD] and [UNK] included).

    Case changes, underscores and white space separate words and cost nothing; no special token is ever added.
    """
    tokenizer = Tokenizer(models.WordPiece(dict(vocabulary), unk_token=UNKNOWN, max_input_chars_per_word=32))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Replace(Regex(_CASE_CHANGE), " "),
            normalizers.Lowercase(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\s_]+"), "removed"),
            pre_tokenizers.Split(Regex(_WORD), "isolated"),
        ]
    )
    tokenizer.add_special_tokens([PAD, UNKNOWN])
    return tokenizer


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word stands in `texts`, words being what the tokenizer will be asked to cut into pieces."""
    tokenizer = code_tokenizer({PAD: 0, UNKNOWN: 1})
    assert tokenizer.normalizer is not None
    assert tokenizer.pre_tokenizer is not None
    counts: Counter[str] = Counter()
    for text in texts:
        normal = tokenizer.normalizer.normalize_str(text)
        counts.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    return counts


def choose_vocabulary(counts: Mapping[str, int], known: Mapping[str, int], size: int, new: int) -> list[str]:
    """`size` pieces: the characters of ASCII, the `new` words that save most tokens, and the most used known pieces.

    `known` is the vocabulary of the model whose embeddings are inherited.
    """
    characters = [c for c in string.printable if not c.isspace() and c not in string.ascii_uppercase + "_"]
    kept = dict.fromkeys([PAD, UNKNOWN, *characters, *("##" + c for c in characters)])
    saved: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for word, count in counts.items():
        cut = pieces(word, known)
        for piece in cut:
            used[piece] += count
        if len(cut) > 1:
            saved[word] = count * (len(cut) - 1)
    kept.update(dict.fromkeys(word for word, _ in saved.most_common(new)))
    for piece, _ in used.most_common():
        if len(kept) == size:
            break
        kept.setdefault(piece)
    return list(kept)


def pieces(word: str, known: Mapping[str, int]) -> list[str]:
    """Greedy longest-match cut of `word` into known pieces; a character that is not known at all is left out.

    Punctuation has no continuation form in uncased BERT vocabularies, so the bare character stands in for it.
    """
    found, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = word[start:end] if start == 0 else "##" + word[start:end]
            if piece in known or (end == start + 1 and (piece := word[start]) in known):
                found.append(piece)
                break
        start = end
    return found


def inherited_embeddings(vocabulary: Sequence[str], known: Mapping[str, int], weight: torch.Tensor) -> torch.Tensor:
    """(len(vocabulary), width): each piece's own row of `weight` (len(known), width), else the mean of its parts'."""
    rows = []
    for piece in vocabulary:
        if piece in known:
            rows.append(weight[known[piece]])
        else:
            parts = pieces(piece.removeprefix("##"), known)
            rows.append(weight[[known[p] for p in parts]].mean(0) if parts else weight.mean(0))
    return torch.stack(rows)
