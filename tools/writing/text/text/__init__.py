"""Work on text: measure, summarise, split, count and annotate."""
