"""Decision records: the call log, read to its end, judged once more, and kept in the database."""
