//! All pages of a list, within a limit.

use fleet_types::view::Page;

use crate::error::Failure;

/// Reads pages until the end or until there are `limit` items. `page` gets the `after` of each call.
pub async fn all<T>(
    schema: &str,
    limit: usize,
    mut page: impl AsyncFnMut(String) -> Result<Page<T>, Failure>,
) -> Result<Page<T>, Failure> {
    let mut whole = Page { schema: schema.to_owned(), items: Vec::new(), next: None };
    let mut after = String::new();
    loop {
        let one = page(after.clone()).await?;
        whole.items.extend(one.items);
        if whole.items.len() > limit {
            whole.items.truncate(limit);
            return Ok(whole);
        }
        match one.next {
            // The same place again would be an endless loop.
            Some(next) if next != after => after = next,
            _ => return Ok(whole),
        }
        if whole.items.len() == limit {
            return Ok(whole);
        }
    }
}
