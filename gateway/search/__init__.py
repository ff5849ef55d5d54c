"""Finding tools by what people say: by their words, and by what these mean."""
