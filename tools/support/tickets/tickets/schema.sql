-- The ticket store. Times are Unix, in microseconds.

CREATE TABLE ticket (
  -- AUTOINCREMENT: a number is never given twice, not even after a deletion.
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  title TEXT NOT NULL,
  description TEXT NOT NULL,
  reporter_name TEXT NOT NULL,
  reporter_email TEXT NOT NULL,
  priority INTEGER NOT NULL,
  state INTEGER NOT NULL,
  resolution TEXT NOT NULL DEFAULT '',
  created_by TEXT NOT NULL,
  create_us INTEGER NOT NULL,
  update_us INTEGER NOT NULL,
  close_us INTEGER
) STRICT;

-- Which ticket a request id has made. The digest is of the request's contents,
-- and empty once the ticket is deleted: nothing of it is kept.
CREATE TABLE request (
  issuer TEXT NOT NULL,
  subject TEXT NOT NULL,
  request_id TEXT NOT NULL,
  digest BLOB NOT NULL,
  number INTEGER NOT NULL,
  create_us INTEGER NOT NULL,
  PRIMARY KEY (issuer, subject, request_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX request_by_age ON request (create_us);
CREATE INDEX request_by_ticket ON request (number);

-- What has happened, in order; no contents.
CREATE TABLE change (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  kind INTEGER NOT NULL,
  number INTEGER NOT NULL,
  change_us INTEGER NOT NULL
) STRICT;

PRAGMA user_version = 1;
