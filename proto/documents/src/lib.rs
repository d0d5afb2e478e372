//! TOML front end of what operators write: spans, schema, lint, explain.
