//! Who keeps a place when a port is crowded (docs/adr/0015). Pure: it counts and decides; [`super::entrance`]
//! acts.
//!
//! A connection is silent until its whole `ClientHello` is there, waits for a permit, shakes hands, and is open.
//! Silent and waiting ones cost a socket each, so they may take any free place, and lose it first: the one that
//! came first, from the source that has most of them. So nobody keeps out whoever comes from elsewhere. Permits
//! for handshakes are few; each source has its share, and the source that uses least of its share is next.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};

/// A connection of one port, numbered in the order of coming.
pub type Id = u64;

/// What shares a permit: one IPv4 address, or one IPv6 network of 64 bits, which one machine may use as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(IpAddr);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & (u128::MAX << 64))),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// The caps of one port.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Connections in all.
    pub connections: usize,
    /// Of them those of one source.
    pub connections_a_source: usize,
    /// Handshakes under way.
    pub handshakes: usize,
    /// Of them those of one source.
    pub handshakes_a_source: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Silent,
    Waiting,
    Shaking,
    Open,
}

struct Entry<T> {
    source: Source,
    stage: Stage,
    /// Taken out when the permit is given or the place is lost.
    handle: Option<T>,
}

/// One source's connections.
#[derive(Default)]
struct OfSource {
    silent: BTreeSet<Id>,
    waiting: BTreeSet<Id>,
    shaking: usize,
    total: usize,
}

impl OfSource {
    /// Whoever came first and has said least.
    fn eldest(&self) -> Option<Id> {
        self.silent.first().or_else(|| self.waiting.first()).copied()
    }

    /// Its place among those that wait for a permit: least used share first, then longest wait.
    fn turn(&self, source: Source) -> Option<(usize, Id, Source)> {
        Some((self.shaking, *self.waiting.first()?, source))
    }

    /// Its place among those that may lose a connection: the last has most, and of equals the eldest.
    fn crowd(&self, source: Source) -> Option<(usize, Reverse<Id>, Source)> {
        Some((self.silent.len() + self.waiting.len(), Reverse(self.eldest()?), source))
    }

    fn forget(&mut self, id: Id, stage: Stage) {
        match stage {
            Stage::Silent => _ = self.silent.remove(&id),
            Stage::Waiting => _ = self.waiting.remove(&id),
            Stage::Shaking => self.shaking -= 1,
            Stage::Open => {}
        }
    }
}

/// What became of a connection that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival<T> {
    /// It has a place; another one may have lost its own.
    Taken {
        /// Its number.
        id: Id,
        /// Who has to go.
        evicted: Option<T>,
    },
    /// Its source has its share, or there is no place.
    Refused,
}

/// The places of one port; `T` is how a pending connection is told.
pub struct Admission<T> {
    caps: Caps,
    next: Id,
    entries: HashMap<Id, Entry<T>>,
    sources: HashMap<Source, OfSource>,
    turns: BTreeSet<(usize, Id, Source)>,
    crowds: BTreeSet<(usize, Reverse<Id>, Source)>,
    shaking: usize,
}

impl<T> Admission<T> {
    /// Nobody is there.
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            next: 0,
            entries: HashMap::new(),
            sources: HashMap::new(),
            turns: BTreeSet::new(),
            crowds: BTreeSet::new(),
            shaking: 0,
        }
    }

    /// May another one be accepted? Until then the kernel holds it.
    pub fn has_room(&self) -> bool {
        self.entries.len() < self.caps.connections || !self.crowds.is_empty()
    }

    /// A connection was accepted.
    pub fn arrive(&mut self, source: Source, handle: T) -> Arrival<T> {
        let own = self.sources.get(&source);
        let victim = if own.is_some_and(|own| own.total >= self.caps.connections_a_source) {
            own.and_then(OfSource::eldest)
        } else if self.entries.len() >= self.caps.connections {
            self.crowds.last().map(|(_, Reverse(eldest), _)| *eldest)
        } else {
            return self.take(source, handle, None);
        };
        match victim {
            Some(victim) => {
                let evicted = self.leave(victim);
                self.take(source, handle, evicted)
            }
            None => Arrival::Refused,
        }
    }

    fn take(&mut self, source: Source, handle: T, evicted: Option<T>) -> Arrival<T> {
        self.next += 1;
        let id = self.next;
        self.entries.insert(id, Entry { source, stage: Stage::Silent, handle: Some(handle) });
        self.change(source, |own| {
            own.total += 1;
            own.silent.insert(id);
        });
        Arrival::Taken { id, evicted }
    }

    /// Its `ClientHello` is there.
    pub fn said_hello(&mut self, id: Id) {
        self.advance(id, Stage::Silent, Stage::Waiting);
    }

    /// Who may shake hands now, if anybody: to be asked until nobody may.
    pub fn grant(&mut self) -> Option<T> {
        let (shaking, id, _) = *self.turns.first()?;
        if self.shaking >= self.caps.handshakes || shaking >= self.caps.handshakes_a_source {
            return None;
        }
        self.advance(id, Stage::Waiting, Stage::Shaking);
        self.entries.get_mut(&id)?.handle.take()
    }

    /// A handshake that takes long: does somebody wait who may have its permit? Then it loses that and its place.
    pub fn yields(&mut self, id: Id) -> bool {
        let Some(entry) = self.entries.get(&id).filter(|entry| entry.stage == Stage::Shaking) else {
            return true;
        };
        let share = self.caps.handshakes_a_source;
        let other = self.turns.first().is_some_and(|(shaking, ..)| *shaking < share);
        let own = self.sources.get(&entry.source);
        let wanted = other || own.is_some_and(|own| !own.waiting.is_empty() && own.shaking <= share);
        if wanted {
            self.leave(id);
        }
        wanted
    }

    /// Its handshake is over; it keeps its place and gives the permit back.
    pub fn opened(&mut self, id: Id) {
        self.advance(id, Stage::Shaking, Stage::Open);
    }

    /// It is gone. Returns the handle of one that was pending.
    pub fn leave(&mut self, id: Id) -> Option<T> {
        let entry = self.entries.remove(&id)?;
        self.shaking -= usize::from(entry.stage == Stage::Shaking);
        self.change(entry.source, |own| {
            own.total -= 1;
            own.forget(id, entry.stage);
        });
        entry.handle
    }

    fn advance(&mut self, id: Id, from: Stage, to: Stage) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| entry.stage == from) else { return };
        entry.stage = to;
        let source = entry.source;
        self.shaking -= usize::from(from == Stage::Shaking);
        self.shaking += usize::from(to == Stage::Shaking);
        self.change(source, |own| {
            own.forget(id, from);
            own.shaking += usize::from(to == Stage::Shaking);
            if to == Stage::Waiting {
                own.waiting.insert(id);
            }
        });
    }

    /// Changes a source and its places in both orders.
    fn change(&mut self, source: Source, change: impl FnOnce(&mut OfSource)) {
        let own = self.sources.entry(source).or_default();
        let before = (own.turn(source), own.crowd(source));
        change(own);
        let (after, is_gone) = ((own.turn(source), own.crowd(source)), own.total == 0);
        if let Some(turn) = &before.0 {
            self.turns.remove(turn);
        }
        if let Some(crowd) = &before.1 {
            self.crowds.remove(crowd);
        }
        self.turns.extend(after.0);
        self.crowds.extend(after.1);
        if is_gone {
            self.sources.remove(&source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> Source {
        IpAddr::from([10, 0, 0, n]).into()
    }

    fn port(connections: usize, handshakes: usize) -> Admission<&'static str> {
        Admission::new(Caps {
            connections,
            connections_a_source: connections,
            handshakes,
            handshakes_a_source: handshakes.div_ceil(2),
        })
    }

    fn come(port: &mut Admission<&'static str>, from: u8, name: &'static str) -> Id {
        match port.arrive(source(from), name) {
            Arrival::Taken { id, evicted: None } => id,
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_source_and_so_is_an_ipv4_address_in_either_form() {
        let of = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn a_full_port_takes_a_place_from_the_eldest_of_the_source_that_has_most() {
        let mut port = port(4, 4);
        come(&mut port, 1, "honest");
        for name in ["a", "b", "c"] {
            come(&mut port, 2, name);
        }
        assert!(port.has_room(), "who says nothing keeps nobody out");
        let next = port.arrive(source(3), "new");
        assert!(matches!(next, Arrival::Taken { evicted: Some("a"), .. }), "{next:?}");
        let next = port.arrive(source(2), "d");
        assert!(matches!(next, Arrival::Taken { evicted: Some("b"), .. }), "{next:?}");
    }

    #[test]
    fn those_that_said_nothing_go_before_those_that_wait_and_nobody_else_goes() {
        let mut port = port(3, 1);
        for name in ["shaking", "waiting", "silent"] {
            let id = come(&mut port, 1, name);
            if name != "silent" {
                port.said_hello(id);
            }
        }
        assert_eq!(port.grant(), Some("shaking"));
        assert_eq!(port.grant(), None, "there is one permit");
        for (name, loses) in [("x", "silent"), ("y", "waiting"), ("z", "x")] {
            let next = port.arrive(source(2), name);
            assert!(matches!(next, Arrival::Taken { evicted: Some(e), .. } if e == loses), "{next:?}");
        }
        let mut full = Admission::new(Caps { connections: 1, ..port.caps });
        let id = come(&mut full, 1, "open");
        full.said_hello(id);
        full.grant();
        full.opened(id);
        assert!(!full.has_room());
        assert_eq!(full.arrive(source(2), "late"), Arrival::Refused);
        full.leave(id);
        assert!(full.has_room());
    }

    #[test]
    fn permits_go_round_among_sources_and_no_source_has_more_than_its_share() {
        let mut port = port(100, 4);
        for name in ["a1", "a2", "a3"] {
            let id = come(&mut port, 1, name);
            port.said_hello(id);
        }
        assert_eq!((port.grant(), port.grant(), port.grant()), (Some("a1"), Some("a2"), None), "its share");
        for (from, name) in [(2, "b1"), (2, "b2"), (3, "c1")] {
            let id = come(&mut port, from, name);
            port.said_hello(id);
        }
        assert_eq!((port.grant(), port.grant(), port.grant()), (Some("b1"), Some("c1"), None));
    }

    #[test]
    fn a_long_handshake_gives_way_when_somebody_waits_for_its_permit_and_not_before() {
        let mut port = port(100, 2);
        let mut hold = |from, name| {
            let id = come(&mut port, from, name);
            port.said_hello(id);
            port.grant();
            id
        };
        let (slow, other) = (hold(1, "slow"), hold(2, "other"));
        assert!(!port.yields(slow), "nobody waits");
        let same = come(&mut port, 1, "same source");
        port.said_hello(same);
        assert!(!port.yields(other), "the one who waits may not have this permit: its source has its share");
        assert!(port.yields(slow));
        assert_eq!(port.grant(), Some("same source"));
        assert!(port.yields(slow), "it has lost its place for good");
        port.opened(slow);
        assert_eq!(port.entries.len(), 2);
    }

    #[test]
    fn a_source_with_all_its_connections_loses_its_own_and_never_anothers() {
        let mut port = Admission::new(Caps {
            connections: 10,
            connections_a_source: 2,
            handshakes: 4,
            handshakes_a_source: 4,
        });
        come(&mut port, 1, "elsewhere");
        let first = come(&mut port, 2, "first");
        let second = come(&mut port, 2, "second");
        let next = port.arrive(source(2), "third");
        assert!(matches!(next, Arrival::Taken { evicted: Some("first"), .. }), "{next:?}");
        port.leave(first);
        let Arrival::Taken { id: third, .. } = next else { unreachable!() };
        for id in [second, third] {
            port.said_hello(id);
            port.grant();
            port.opened(id);
        }
        assert_eq!(port.arrive(source(2), "fourth"), Arrival::Refused);
    }

    #[test]
    fn whatever_comes_and_goes_the_counts_are_true() {
        let mut port = port(50, 4);
        let mut alive = Vec::new();
        for step in 0_u32..5_000 {
            let from = u8::try_from(step % 7).unwrap();
            if let Arrival::Taken { id, .. } = port.arrive(source(from), "x") {
                alive.push(id);
            }
            let pick = alive[usize::try_from(step).unwrap() * 31 % alive.len()];
            match step % 5 {
                0 | 1 => port.said_hello(pick),
                2 => port.opened(pick),
                3 => {
                    port.yields(pick);
                }
                _ => {
                    port.leave(pick);
                }
            }
            port.grant();
            let stage = |stage| port.entries.values().filter(|entry| entry.stage == stage).count();
            assert!(port.entries.len() <= 50);
            let pending: usize = port.crowds.iter().map(|(count, ..)| count).sum();
            assert_eq!(pending, stage(Stage::Silent) + stage(Stage::Waiting));
            assert_eq!(port.turns.len(), port.sources.values().filter(|own| !own.waiting.is_empty()).count());
            assert_eq!(port.shaking, stage(Stage::Shaking));
            assert!(port.shaking <= 4);
            assert_eq!(port.sources.values().map(|own| own.total).sum::<usize>(), port.entries.len());
            assert!(port.sources.values().all(|own| own.shaking <= 2));
        }
    }
}
