"""Functions and the calls of them: specifications, dialects, validation, comparison, grammars."""
