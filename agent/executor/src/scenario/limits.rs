//! Output and other bounds.

use fleet_types::job::Outcome;
use fleet_types::request::Verb;

use super::bench::{Bench, backups};
use super::scripted::Does;

#[tokio::test]
async fn much_output_is_cut_in_the_middle_and_never_delays_the_report() {
    let mut bench = Bench::new("mode = \"enforce\"");
    bench.tasks.set("one", Does::Prints(3000));
    let (_handle, mut core) = bench.start(1).await;
    let order = bench.order(1, Verb::Run, backups(&["one"]));
    assert_eq!(core.outcome(&bench, &order, 1).await.0, Outcome::Succeeded);
    while !core.output.last().is_some_and(|chunk| chunk.last) {
        core.one("the end of the output").await.unwrap();
    }
    let mut next = 0;
    let mut text = Vec::new();
    for chunk in &core.output {
        assert_eq!(chunk.offset, next);
        assert!(chunk.data.len() <= 64 * 1024);
        next += chunk.data.len() as u64;
        text.extend(&chunk.data);
    }
    assert!(text.len() < 1100 * 1024);
    assert!(String::from_utf8_lossy(&text).contains("bytes left out"));
}
