"""The tables, and the one condition that decides what may go."""

__all__ = ["NEEDED", "SCHEMA", "VERSION"]

VERSION = 1
SCHEMA = """
CREATE TABLE store (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    target TEXT PRIMARY KEY, media_type TEXT NOT NULL, size INTEGER NOT NULL, image_id TEXT, added REAL NOT NULL);
CREATE INDEX images_by_id ON images (image_id);
CREATE TABLE names (name TEXT PRIMARY KEY, target TEXT NOT NULL REFERENCES images) WITHOUT ROWID;
CREATE INDEX names_by_target ON names (target);
CREATE TABLE repo_digests (
    repository TEXT, digest TEXT, target TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX repo_digests_by_target ON repo_digests (target);
CREATE TABLE image_layers (
    target TEXT REFERENCES images ON DELETE CASCADE, diff_id TEXT, PRIMARY KEY (target, diff_id)) WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (diff_id);
CREATE TABLE image_blobs (
    target TEXT REFERENCES images ON DELETE CASCADE, digest TEXT, PRIMARY KEY (target, digest)) WITHOUT ROWID;
CREATE INDEX image_blobs_by_digest ON image_blobs (digest);
CREATE TABLE layers (
    diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL, disk INTEGER NOT NULL, entries INTEGER NOT NULL,
    data_bytes INTEGER NOT NULL, added REAL NOT NULL, bad TEXT) WITHOUT ROWID;
CREATE TABLE layer_blobs (
    digest TEXT PRIMARY KEY, diff_id TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX layer_blobs_by_layer ON layer_blobs (diff_id);
CREATE TABLE blob_sources (digest TEXT, repository TEXT, PRIMARY KEY (digest, repository)) WITHOUT ROWID;
CREATE TABLE snapshots (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, diff_ids TEXT NOT NULL, added REAL NOT NULL,
    mounted TEXT, boot_id TEXT) WITHOUT ROWID;
CREATE TABLE containers (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, target TEXT, image_id TEXT, created REAL NOT NULL,
    state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE leases (id TEXT PRIMARY KEY, added REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE lease_items (
    lease TEXT REFERENCES leases ON DELETE CASCADE, digest TEXT, PRIMARY KEY (lease, digest)) WITHOUT ROWID;
CREATE INDEX lease_items_by_digest ON lease_items (digest);
CREATE TABLE records (kind TEXT, key TEXT, value TEXT NOT NULL, used REAL NOT NULL, PRIMARY KEY (kind, key));
CREATE TABLE record_layers (
    kind TEXT, key TEXT, diff_id TEXT, PRIMARY KEY (kind, key, diff_id),
    FOREIGN KEY (kind, key) REFERENCES records ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX record_layers_by_layer ON record_layers (diff_id);
"""

NEEDED = """(
    EXISTS (SELECT 1 FROM image_layers AS i WHERE i.diff_id = layers.diff_id)
    OR EXISTS (SELECT 1 FROM record_layers AS r WHERE r.diff_id = layers.diff_id)
    OR EXISTS (SELECT 1 FROM lease_items AS l WHERE l.digest = layers.diff_id)
    OR layers.diff_id IN (SELECT value FROM snapshots, json_each(snapshots.diff_ids)))
"""
