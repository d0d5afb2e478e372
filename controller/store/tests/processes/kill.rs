//! SIGKILL at random points: nothing that was acknowledged is lost, and state and log never differ (T22).

use crate::torture::{Acknowledged, Torture, verify};

/// T22 in its small profile; the full 300 are for the long one.
const KILLS: usize = 25;

#[tokio::test]
async fn twenty_five_kills_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut records = 0;
    for kill in 0..KILLS {
        // xorshift: the same points of killing each time, as far as the machine lets it.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let until = usize::try_from(random % 300).unwrap();
        let mut child = Torture::start(dir.path(), 0);
        let read = child.read(until, &mut acknowledged);
        assert_eq!(read, until, "kill {kill}: the child ended by itself: {:?}", child.said);
        child.read_until_seen(&mut acknowledged);
        let seen = child.kill(&mut acknowledged);
        // Every other time this process opens it and closes it well; otherwise the next child finds it as the kill has
        // left it and goes through its probe. The last one is always verified.
        if kill % 2 == 0 {
            records = verify(dir.path(), &acknowledged, seen).await;
        }
    }
    assert!(acknowledged.len() > 1000 && records >= acknowledged.len() as u64, "{records} records");
}
