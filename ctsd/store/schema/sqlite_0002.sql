-- compatible: no
-- The processes that use this store. holder: name and epoch, as searches.holder has it; expires:
-- when the others may take the process for dead, in store time.
INSERT INTO numbers (name, value) VALUES ('epoch', 0);
CREATE TABLE nodes (
    name TEXT NOT NULL PRIMARY KEY,
    epoch BIGINT NOT NULL,
    holder TEXT NOT NULL,
    expires DOUBLE PRECISION NOT NULL
) WITHOUT ROWID;
CREATE INDEX searches_held ON searches (holder) WHERE holder <> '';
CREATE INDEX scans_new ON scans (created) WHERE state <> 'complete';
