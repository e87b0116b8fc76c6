-- Values that came from outside are BLOBs that ctsd.stored makes: any JSON string can be in them.
-- Indexes hold digests, never long values.

-- Counters of the store itself. Ids and versions are taken from here (no RETURNING, no sequences),
-- so that the order of versions is the order of commits.
CREATE TABLE numbers (
    name TEXT NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO numbers (name, value) VALUES
    ('schema', 0),
    ('version', 0),
    ('forgotten', 0),
    ('threat', 0),
    ('import', 0),
    ('token', 0);

CREATE TABLE secrets (
    name TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
);

-- outcomes: all searches of a scan that ended in its first answer, in one value; NULL when they
-- are rows of searches. artifact, file: only while somebody may have to ask (again).
-- wake: of an OPEN scan, when somebody has to look at it.
-- Not WITHOUT ROWID: there a row above 1,002 bytes spills into a page of its own.
CREATE TABLE scans (
    id TEXT NOT NULL PRIMARY KEY,
    service TEXT NOT NULL,
    state TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    deadline DOUBLE PRECISION NOT NULL,
    wake DOUBLE PRECISION NOT NULL,
    digest BLOB NOT NULL,
    artifact BLOB,
    file BLOB,
    outcomes BLOB
);
CREATE INDEX scans_unfinished ON scans (service, digest) WHERE state <> 'complete';
CREATE INDEX scans_wake ON scans (wake) WHERE state = 'open';
CREATE INDEX scans_age ON scans (created) WHERE state <> 'open';

CREATE TABLE searches (
    scan_id TEXT NOT NULL,
    searcher TEXT NOT NULL,
    place INTEGER NOT NULL,
    outcome BLOB,
    tries INTEGER NOT NULL,
    due DOUBLE PRECISION,
    holder TEXT NOT NULL,
    takeovers INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    PRIMARY KEY (scan_id, searcher)
);

-- base: NULL while nobody may see the import; after it, the version before its first threat.
-- Import 0 is what was not imported; its base is 0 for ever.
CREATE TABLE imports (
    id BIGINT NOT NULL PRIMARY KEY,
    base BIGINT,
    size BIGINT NOT NULL,
    touched DOUBLE PRECISION NOT NULL,
    abandoned INTEGER NOT NULL
);
INSERT INTO imports (id, base, size, touched, abandoned) VALUES (0, 0, 0, 0, 0);

-- changed + its import's base is the number of its newest change.
-- twin: what equal threats that people entered have in common; NULL for a searcher's.
CREATE TABLE threats (
    id INTEGER NOT NULL PRIMARY KEY,
    import_id BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    searcher BLOB NOT NULL,
    source BLOB NOT NULL,
    twin BLOB,
    expires DOUBLE PRECISION,
    created DOUBLE PRECISION NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX threats_changed ON threats (import_id, changed);
CREATE INDEX threats_twin ON threats (twin) WHERE twin IS NOT NULL;
CREATE INDEX threats_found ON threats (source) WHERE twin IS NULL;
CREATE INDEX threats_expire ON threats (expires) WHERE expires IS NOT NULL;

-- What was deleted, for those who follow the changes.
CREATE TABLE gone (
    changed BIGINT NOT NULL PRIMARY KEY,
    threat_id BIGINT NOT NULL,
    at DOUBLE PRECISION NOT NULL
);

-- name: digests. expires: when the row means nothing any more, in store time.
CREATE TABLE leases (
    name BLOB NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    token BIGINT NOT NULL,
    expires DOUBLE PRECISION NOT NULL
) WITHOUT ROWID;
CREATE INDEX leases_expire ON leases (expires);
CREATE TABLE counters (
    name BLOB NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL,
    expires DOUBLE PRECISION NOT NULL
) WITHOUT ROWID;
CREATE INDEX counters_expire ON counters (expires);
CREATE TABLE pairs (
    name BLOB NOT NULL PRIMARY KEY,
    value BLOB NOT NULL,
    expires DOUBLE PRECISION NOT NULL
);
CREATE INDEX pairs_expire ON pairs (expires);
