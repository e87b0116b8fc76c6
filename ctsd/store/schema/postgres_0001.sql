-- Values that came from outside are BYTEA that ctsd.stored makes: any JSON string can be in them.
-- Indexes hold digests, never long values. Text is compared byte by byte, so that no index depends
-- on a library's idea of order.

-- Counters of the store itself. Ids and versions are taken from here (a sequence's numbers do not
-- come in the order of commits). Who writes locks the row 'writer' first. 'oldest': a ctsd that
-- does not know this version of the schema can't work with this database; a newer one may.
CREATE TABLE numbers (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO numbers (name, value) VALUES
    ('schema', 0),
    ('oldest', 1),
    ('writer', 0),
    ('version', 0),
    ('forgotten', 0),
    ('threat', 0),
    ('import', 0),
    ('token', 0);

CREATE TABLE secrets (
    name TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL
);

-- outcomes: all searches of a scan that ended in its first answer, in one value; NULL when they
-- are rows of searches. artifact, file: only while somebody may have to ask (again).
-- wake: of an OPEN scan, when somebody has to look at it.
CREATE TABLE scans (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    service TEXT COLLATE "C" NOT NULL,
    state TEXT COLLATE "C" NOT NULL,
    created DOUBLE PRECISION NOT NULL,
    deadline DOUBLE PRECISION NOT NULL,
    wake DOUBLE PRECISION NOT NULL,
    digest BYTEA NOT NULL,
    artifact BYTEA,
    file BYTEA,
    outcomes BYTEA
);
CREATE INDEX scans_unfinished ON scans (service, digest) WHERE state <> 'complete';
CREATE INDEX scans_wake ON scans (wake) WHERE state = 'open';
CREATE INDEX scans_age ON scans (created) WHERE state <> 'open';

CREATE TABLE searches (
    scan_id TEXT COLLATE "C" NOT NULL,
    searcher TEXT COLLATE "C" NOT NULL,
    place INTEGER NOT NULL,
    outcome BYTEA,
    tries INTEGER NOT NULL,
    due DOUBLE PRECISION,
    holder TEXT COLLATE "C" NOT NULL,
    takeovers INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    PRIMARY KEY (scan_id, searcher)
);
CREATE INDEX searches_held ON searches (scan_id) WHERE holder <> '';

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
    id BIGINT NOT NULL PRIMARY KEY,
    import_id BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    searcher BYTEA NOT NULL,
    source BYTEA NOT NULL,
    twin BYTEA,
    expires DOUBLE PRECISION,
    created DOUBLE PRECISION NOT NULL,
    body BYTEA NOT NULL
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
    name BYTEA NOT NULL PRIMARY KEY,
    holder TEXT COLLATE "C" NOT NULL,
    token BIGINT NOT NULL,
    expires DOUBLE PRECISION NOT NULL
);
CREATE INDEX leases_expire ON leases (expires);
CREATE TABLE counters (
    name BYTEA NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL,
    expires DOUBLE PRECISION NOT NULL
);
CREATE INDEX counters_expire ON counters (expires);
CREATE TABLE pairs (
    name BYTEA NOT NULL PRIMARY KEY,
    value BYTEA NOT NULL,
    expires DOUBLE PRECISION NOT NULL
);
CREATE INDEX pairs_expire ON pairs (expires);
