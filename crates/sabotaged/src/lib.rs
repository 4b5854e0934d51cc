//! Nothing: this package is here for the dev-dependency in its `Cargo.toml`.
