//! A `JsonSchema` derive that makes nothing, for builds of the types without schemas.
//!
//! Documents carry the attributes of their schema in every build; the agent, which explains no documents, must not
//! link the crate that reads them. Only `fleet-types` uses it.

use proc_macro::TokenStream;

/// Accepts what `schemars::JsonSchema` accepts.
#[proc_macro_derive(JsonSchema, attributes(schemars))]
pub fn json_schema(_: TokenStream) -> TokenStream {
    TokenStream::new()
}
