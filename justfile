# Every recipe calls a script or cargo: nothing here needs `just` itself.

# Lists the recipes.
default:
    @just --list

# Runs the unit tests and the behaviour tests on SQLite; needs no root and no database servers.
test *args:
    ./scripts/test-quick {{args}}

# Runs all tests on throwaway database servers, or on the named ones only: `just test-db postgres`.
test-db *engines:
    ./scripts/test-db {{engines}}

# Runs everything that a change must pass. Installs Debian packages, needs root.
test-all:
    ./scripts/test

# Checks format and lints.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Formats the code.
fmt:
    cargo fmt --all

# Starts a server with SQLite on http://127.0.0.1:5001.
run:
    cargo run --release

# Writes schema.graphql anew.
schema:
    cargo run --quiet -- schema > schema.graphql.new
    mv schema.graphql.new schema.graphql

# Writes the snapshots in src/ and tests/ anew, after a wanted change of SQL or of an answer.
snapshots:
    ./scripts/snapshots

# Measures a release build against raw SQL.
bench *args:
    ./scripts/bench {{args}}
