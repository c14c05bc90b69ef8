-- Keys (by their public prefix), users and addresses (a network in its shortest form) kept out until a moment.
ALTER TABLE user_blocks RENAME TO blocks;
ALTER TABLE blocks RENAME COLUMN user_id TO subject;
ALTER TABLE blocks ADD COLUMN kind text NOT NULL DEFAULT 'user' CHECK (kind IN ('key', 'user', 'address'));
ALTER TABLE blocks ALTER COLUMN kind DROP DEFAULT;
ALTER TABLE blocks DROP CONSTRAINT user_blocks_pkey;
ALTER TABLE blocks ADD PRIMARY KEY (kind, subject);
ALTER INDEX idx_user_blocks_until RENAME TO idx_blocks_until;
