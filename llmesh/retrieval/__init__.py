"""Finding passages by their words and by what they mean, for tools that retrieve: `pip install 'll-mesh[retrieval]'`.

texts -> Passages: what answers are made of, by place
Meanings: learns in the background what they mean, and keeps it on disk
Meanings.ask(query) -> Asked;  Passages.best(words' scores, asked) -> places
"""

__all__ = ["Asked", "Flags", "Meanings", "Passages", "Scores"]

from llmesh.retrieval.asked import Asked
from llmesh.retrieval.meanings import Meanings
from llmesh.retrieval.passages import Flags, Passages, Scores
